//! Which credentials are found, and where; never their values.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files;
use super::report::{Area, Check, note, ok};
use super::settings::Known;
use super::variables::Variables;
use super::viya;

/// Where Azure answers a VM's questions about itself (Azure Instance Metadata Service). It is a link-local address: asking
/// is only possible on the VM itself, and only done with consent.
const METADATA: &str = "http://169.254.169.254/metadata/instance?api-version=2021-02-01";
const METADATA_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn examine(
    variables: Variables,
    known: Known,
    storage_options: HashMap<String, String>,
    network: bool,
) -> Vec<Check> {
    let home = std::env::home_dir();
    let metadata = async {
        match network {
            true => managed_identity(METADATA).await,
            false => note(Area::Credentials, "Azure managed identity", "not asked for (network is off)")
                .hint("use --network to ask the metadata service of Azure, on an Azure VM"),
        }
    };
    let (metadata, mut rest) = tokio::join!(metadata, async {
        // Files can hang.
        let looked =
            tokio::task::spawn_blocking(move || at_rest(&variables, &known, &storage_options, home.as_deref()));
        looked.await.unwrap_or_default()
    });
    let after = rest.iter().position(|check| check.name == "AWS").unwrap_or(rest.len());
    rest.insert(after, metadata);
    rest
}

/// What needs no network.
fn at_rest(
    variables: &Variables,
    known: &Known,
    storage_options: &HashMap<String, String>,
    home: Option<&Path>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    if !storage_options.is_empty() {
        let mut names: Vec<&str> = storage_options.keys().map(String::as_str).collect();
        names.sort_unstable();
        checks.push(ok(Area::Credentials, "storage options", format!("given: {}", names.join(", "))));
    }
    checks.extend([azure_storage(variables), azure_resource_manager(variables), aws(variables, home)]);
    checks.push(google(variables, home));
    checks.extend(viya::examine(variables, known));
    checks.extend([sendevent(variables, known)]);
    checks.extend(ssh(variables, home));
    if home.is_none() {
        checks.push(note(Area::Credentials, "home", "there is no home directory: nothing was looked for in it"));
    }
    checks
}

/// One identity: what it is called, and its variables; each is any of several names.
struct Identity<'a> {
    what: &'a str,
    variables: &'a [&'a [&'a str]],
}

/// The identities that are there, and what is missing of those that are there in part. Whatever parts they share says
/// nothing about any one of them: the first variable of each is what it is known by.
fn identities(variables: &Variables, known: &[Identity<'_>]) -> (Vec<String>, Vec<String>) {
    let (mut whole, mut halves) = (Vec::new(), Vec::new());
    for identity in known {
        let found: Vec<Option<&str>> = identity.variables.iter().map(|names| variables.first(names)).collect();
        let present: Vec<&str> = found.iter().copied().flatten().collect();
        if present.len() == found.len() {
            whole.push(format!("{} ({})", identity.what, present.join(", ")));
        } else if found.first().is_some_and(Option::is_some) {
            let missing: Vec<&str> = identity
                .variables
                .iter()
                .zip(&found)
                .filter(|(_, found)| found.is_none())
                .filter_map(|(names, _)| names.first().copied())
                .collect();
            halves.push(format!("{} without {}", identity.what, missing.join(" and ")));
        }
    }
    (whole, halves)
}

fn judged(name: &str, (whole, halves): (Vec<String>, Vec<String>), none: &str) -> Check {
    if !halves.is_empty() {
        let found = if whole.is_empty() { String::new() } else { format!("{}; ", whole.join("; ")) };
        return ok(Area::Credentials, name, "")
            .warning(format!("{found}{}", halves.join("; ")), "set what is missing, or unset the rest");
    }
    if whole.is_empty() {
        return note(Area::Credentials, name, none);
    }
    ok(Area::Credentials, name, whole.join("; "))
}

const CLIENT: &[&str] = &["AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID"];
const TENANT: &[&str] = &["AZURE_TENANT_ID", "AZURE_STORAGE_TENANT_ID"];

fn azure_storage(variables: &Variables) -> Check {
    let found = identities(
        variables,
        &[
            Identity { what: "account key", variables: &[&["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"]] },
            Identity { what: "SAS", variables: &[&["AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"]] },
            Identity { what: "bearer token", variables: &[&["AZURE_STORAGE_TOKEN"]] },
            Identity {
                what: "service principal",
                variables: &[&["AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET"], CLIENT, TENANT],
            },
            Identity { what: "workload identity", variables: &[&["AZURE_FEDERATED_TOKEN_FILE"], CLIENT, TENANT] },
            Identity {
                what: "managed identity",
                variables: &[&["AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"]],
            },
            Identity { what: "Azure CLI", variables: &[&["AZURE_USE_AZURE_CLI"]] },
        ],
    );
    let check = judged("Azure storage", found, "nothing in the environment");
    match named_file(variables, &["AZURE_FEDERATED_TOKEN_FILE"]) {
        Some(problem) => check.warning(problem, "see whether the token is mounted there (workload identity webhook)"),
        None => check,
    }
}

fn azure_resource_manager(variables: &Variables) -> Check {
    let found = identities(
        variables,
        &[
            Identity {
                what: "service principal",
                variables: &[&["AZURE_CLIENT_SECRET"], &["AZURE_CLIENT_ID"], &["AZURE_TENANT_ID"]],
            },
            Identity {
                what: "workload identity",
                variables: &[&["AZURE_FEDERATED_TOKEN_FILE"], &["AZURE_CLIENT_ID"], &["AZURE_TENANT_ID"]],
            },
            Identity { what: "managed identity", variables: &[&["IDENTITY_ENDPOINT"], &["IDENTITY_HEADER"]] },
        ],
    );
    judged("Azure Resource Manager", found, "nothing in the environment")
}

/// Why the file that one of these variables names cannot be read.
fn named_file(variables: &Variables, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let path = variables.get(name)?;
        let error = std::fs::File::open(path).err()?;
        Some(format!("{name} names {path}, which cannot be read: {error}"))
    })
}

fn aws(variables: &Variables, home: Option<&Path>) -> Check {
    let found = identities(
        variables,
        &[
            Identity { what: "access key", variables: &[&["AWS_ACCESS_KEY_ID"], &["AWS_SECRET_ACCESS_KEY"]] },
            Identity { what: "web identity", variables: &[&["AWS_WEB_IDENTITY_TOKEN_FILE"], &["AWS_ROLE_ARN"]] },
            Identity {
                what: "container",
                variables: &[&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]],
            },
        ],
    );
    let none = found.0.is_empty() && found.1.is_empty();
    let check = judged("AWS", found, "nothing in the environment");
    if let Some(problem) =
        named_file(variables, &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"])
    {
        return check.warning(problem, "see whether the token is mounted there");
    }
    let profile = variables.has("AWS_PROFILE") || home.is_some_and(|home| home.join(".aws/credentials").exists());
    if none && profile {
        return check.hint(
            "profiles (AWS_PROFILE, ~/.aws) are not read: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for example with \
             `aws configure export-credentials --format env`",
        );
    }
    check
}

/// The file that `gcloud auth application-default login` writes, and the ones that variables name.
fn google(variables: &Variables, home: Option<&Path>) -> Check {
    if let Some(name) = variables.first(&["GOOGLE_SERVICE_ACCOUNT_KEY"]) {
        return ok(Area::Credentials, "Google", format!("service account key ({name})"));
    }
    let names = ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_APPLICATION_CREDENTIALS"];
    if let Some(name) = variables.first(&names) {
        let check = files::private("Google", Path::new(variables.get(name).unwrap_or_default()), "credentials");
        let detail = format!("{} ({name})", check.detail);
        return match check.status {
            super::Status::Note => check.warning(detail, format!("set {name} to a file that exists, or unset it")),
            _ => Check { detail, ..check },
        };
    }
    let file = home.map(|home| home.join(".config/gcloud/application_default_credentials.json"));
    match file.filter(|file| file.exists()) {
        Some(file) => files::private("Google", &file, "application default credentials"),
        None => note(Area::Credentials, "Google", "nothing in the environment"),
    }
}

/// Asks Azure's metadata service whether it is there. No token is asked for.
async fn managed_identity(url: &str) -> Check {
    let name = "Azure managed identity";
    let absent = |why: String| {
        note(
            Area::Credentials,
            name,
            format!("the metadata service does not answer ({why}): not an Azure VM, or closed"),
        )
    };
    let client = reqwest::Client::builder().no_proxy().timeout(METADATA_LIMIT).build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return absent(error.to_string()),
    };
    match client.get(url).header("Metadata", "true").send().await {
        Ok(answer) if answer.status().is_success() => ok(
            Area::Credentials,
            name,
            "the metadata service answers; whether an identity is assigned shows when it is used",
        ),
        Ok(answer) => absent(format!("it says {}", answer.status())),
        Err(error) if error.is_timeout() => absent(format!("silent for {} s", METADATA_LIMIT.as_secs())),
        Err(_) => absent("no connection".to_owned()),
    }
}

fn sendevent(variables: &Variables, known: &Known) -> Check {
    let name = "AutoSys sendevent";
    let set: Vec<&str> =
        ["AUTOSERV", "AUTOSYS", "AUTOUSER"].into_iter().filter(|variable| variables.has(variable)).collect();
    let set = if set.is_empty() { String::new() } else { format!("; {} set", set.join(", ")) };
    let program = known.transport.as_deref().unwrap_or("sendevent");
    let found = match program.contains('/') {
        true => Some(PathBuf::from(program)).filter(|path| path.is_file()),
        false => variables.get("PATH").and_then(|path| {
            std::env::split_paths(path).map(|directory| directory.join(program)).find(|path| path.is_file())
        }),
    };
    match found {
        Some(path) if !executable(&path) => ok(Area::Credentials, name, "")
            .warning(format!("{} may not be run{set}", path.display()), format!("chmod +x '{}'", path.display())),
        Some(path) if !variables.has("AUTOSERV") => ok(Area::Credentials, name, "").warning(
            format!("{}, but AUTOSERV is not set{set}", path.display()),
            "set AUTOSERV, AUTOSYS and AUTOUSER as the profile of the AutoSys client does, or give them to SendEvent",
        ),
        Some(path) => ok(Area::Credentials, name, format!("{}{set}", path.display())),
        None if known.transport.is_some() => ok(Area::Credentials, name, "").warning(
            format!("the configured program {program} was not found{set}"),
            "install the AutoSys client, or give the program's path as transport",
        ),
        None => note(Area::Credentials, name, format!("no sendevent in PATH{set}"))
            .hint("only needed where events are sent to AutoSys: install its client, or set transport to its path"),
    }
}

fn executable(path: &Path) -> bool {
    #[cfg(unix)]
    {
        std::fs::metadata(path)
            .is_ok_and(|found| std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 != 0)
    }
    #[cfg(not(unix))]
    {
        path.is_file()
    }
}

/// Keys by the names that OpenSSH looks for (ssh(1), IdentityFile).
const KEYS: [&str; 4] = ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk"];

fn ssh(variables: &Variables, home: Option<&Path>) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(match variables.get("SSH_AUTH_SOCK") {
        None => note(Area::Credentials, "SSH agent", "SSH_AUTH_SOCK is not set"),
        Some(path) if Path::new(path).exists() => ok(Area::Credentials, "SSH agent", format!("at {path}")),
        Some(path) => ok(Area::Credentials, "SSH agent", "")
            .warning(format!("SSH_AUTH_SOCK names {path}, which does not exist"), "start ssh-agent anew, or unset it"),
    });
    let Some(directory) = home.map(|home| home.join(".ssh")) else { return checks };
    let keys: Vec<PathBuf> = KEYS.iter().map(|name| directory.join(name)).filter(|path| path.exists()).collect();
    if keys.is_empty() {
        checks.push(note(Area::Credentials, "SSH keys", format!("none in {}", directory.display())));
    }
    checks.extend(keys.iter().map(|path| files::private("SSH keys", path, "a private key")));
    let hosts = directory.join("known_hosts");
    checks.push(match std::fs::read_to_string(&hosts) {
        Ok(text) => {
            let count = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
            ok(Area::Credentials, "SSH known hosts", format!("{count} in {}", hosts.display()))
        }
        Err(_) => note(Area::Credentials, "SSH known hosts", format!("no {}", hosts.display())),
    });
    checks
}

#[cfg(test)]
mod tests;
