//! The sandbox as a whole.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn with_speed(speed: f64) -> SandboxOptions {
    let viya = Some(ViyaOptions { speed, ..ViyaOptions::default() });
    SandboxOptions { viya, ..SandboxOptions::default() }
}

#[test]
fn everything_it_names_is_there_and_goes_with_it() {
    let sandbox = Sandbox::start(with_speed(100.0)).unwrap();
    let inventory = sandbox.inventory.as_ref().unwrap();
    let names: Vec<&str> = inventory.vms().iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["vm1", "vm2", "vm3", "vm4"]);
    assert_eq!(sandbox.vms.down, ["vm3"]);
    let port: u16 = sandbox.vms.probe().strip_prefix("tcp:").unwrap().parse().unwrap();
    assert!(TcpStream::connect((inventory.vms()[0].ip_address.as_str(), port)).is_ok());

    let mode = fs::metadata(sandbox.tokens()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let tokens: Value = serde_json::from_slice(&fs::read(sandbox.tokens()).unwrap()).unwrap();
    for key in ["access_token", "token_type", "refresh_token", "expires_in", "scope", "jti", "expires_at"] {
        assert!(tokens.get(key).is_some(), "{key}");
    }
    let expires = tokens["expires_at"].as_str().unwrap();
    chrono::NaiveDateTime::parse_from_str(expires, "%Y-%m-%dT%H:%M:%S%.f").unwrap();
    let jobs: Value = serde_json::from_slice(&fs::read(sandbox.jobs()).unwrap()).unwrap();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 54);
    assert_eq!(jobs["settings"]["base_url"].as_str(), sandbox.viya.as_ref().map(ViyaSandbox::url).as_deref());
    assert!(sandbox.autosys.as_ref().unwrap().sendevent().is_file());
    assert!(sandbox.autosys.as_ref().unwrap().url().starts_with("http://127.0.0.1:"));
    assert!(!format!("{sandbox:?}").contains(tokens["access_token"].as_str().unwrap()));

    let (dir, url) = (sandbox.tokens().parent().unwrap().to_owned(), sandbox.viya.as_ref().unwrap().url());
    drop(sandbox);
    assert!(!dir.exists());
    assert!(TcpStream::connect(url.strip_prefix("http://").unwrap()).is_err());
}

#[test]
fn parts_can_be_left_out() {
    let options = || SandboxOptions { autosys: None, vms: 0, vms_down: 0, ..SandboxOptions::default() };
    let sandbox = Sandbox::start(options()).unwrap();
    assert!(sandbox.autosys.is_none() && sandbox.inventory.is_none());
    assert!(sandbox.tokens().is_file());
    let sandbox = Sandbox::start(SandboxOptions { viya: None, ..options() }).unwrap();
    assert!(sandbox.viya.is_none() && !sandbox.tokens().exists());
}

#[test]
fn a_file_that_cannot_be_written_is_a_clear_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = write(&file.path().join("x"), "text", 0o600).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    assert!(error.to_string().contains("set TMPDIR"));
}

/// Set in the process of its own that measures.
const MEASURING: &str = "JOBROTA_TEST_IDLE_SANDBOX";

/// CPU time of this process so far in the kernel's ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn an_idle_sandbox_uses_no_cpu() {
    if std::env::var_os(MEASURING).is_none() {
        // In a process of its own: other tests use CPU.
        let this = std::env::current_exe().unwrap();
        let measured = std::process::Command::new(this)
            .args(["--exact", "sandbox::tests::an_idle_sandbox_uses_no_cpu"])
            .env(MEASURING, "1")
            .output()
            .unwrap();
        assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stdout));
        return;
    }
    let sandbox = Sandbox::start(with_speed(1_000.0)).unwrap();
    let before = cpu_ticks();
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_ticks() - before;
    assert!(used <= 1, "{used} ticks of CPU in a second of idling");
    drop(sandbox);
}
