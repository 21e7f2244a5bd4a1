//! Checks which credentials exist, and where. The report never contains their values.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::EnvironmentVariables;
use super::files;
use super::report::{Area, Check, Status};
use super::settings::SettingValues;
use crate::autosys::find_program;
use crate::http::client;
use crate::storage::StorageOptions;

/// The Azure Instance Metadata Service. Its address is link-local, so that only a VM itself can reach it. The check needs
/// the permission to use the network.
const METADATA: &str = "http://169.254.169.254/metadata/instance?api-version=2021-02-01";
const METADATA_LIMIT: Duration = Duration::from_secs(2);

/// An identity: its name, and the variables that it consists of. Each of these can have several names.
type IdentityVariables = (&'static str, &'static [&'static [&'static str]]);

const CLIENT: &[&str] = &["AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID"];
const TENANT: &[&str] = &["AZURE_TENANT_ID", "AZURE_STORAGE_TENANT_ID"];
const AZURE_STORAGE: &[IdentityVariables] = &[
    ("account key", &[&["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"]]),
    ("SAS", &[&["AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"]]),
    ("bearer token", &[&["AZURE_STORAGE_TOKEN"]]),
    ("service principal", &[&["AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET"], CLIENT, TENANT]),
    ("workload identity", &[&["AZURE_FEDERATED_TOKEN_FILE"], CLIENT, TENANT]),
    ("managed identity", &[&["AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"]]),
    ("Azure CLI", &[&["AZURE_USE_AZURE_CLI"]]),
];
const AZURE_RESOURCE_MANAGER: &[IdentityVariables] = &[
    ("service principal", &[&["AZURE_CLIENT_SECRET"], &["AZURE_CLIENT_ID"], &["AZURE_TENANT_ID"]]),
    ("workload identity", &[&["AZURE_FEDERATED_TOKEN_FILE"], &["AZURE_CLIENT_ID"], &["AZURE_TENANT_ID"]]),
    ("managed identity", &[&["IDENTITY_ENDPOINT"], &["IDENTITY_HEADER"]]),
];
const AWS: &[IdentityVariables] = &[
    ("access key", &[&["AWS_ACCESS_KEY_ID"], &["AWS_SECRET_ACCESS_KEY"]]),
    ("web identity", &[&["AWS_WEB_IDENTITY_TOKEN_FILE"], &["AWS_ROLE_ARN"]]),
    ("container", &[&["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]]),
];

pub(super) async fn examine(
    variables: EnvironmentVariables,
    known: SettingValues,
    storage_options: StorageOptions,
    network: bool,
) -> Vec<Check> {
    let home = crate::runtime::home_directory();
    let metadata = async {
        match network {
            true => managed_identity(METADATA).await,
            false => Area::CREDENTIALS
                .note("Azure managed identity", "not asked for (network is off)")
                .advise("use --network to ask the metadata service of Azure, on an Azure VM"),
        }
    };
    let (metadata, mut checks) = tokio::join!(metadata, async {
        // Files can be on a disk that hangs.
        let checks = tokio::task::spawn_blocking(move || local(&variables, &known, &storage_options, home.as_deref()));
        checks.await.unwrap_or_default()
    });
    let position = checks.iter().position(|check| check.name == "AWS").unwrap_or(checks.len());
    checks.insert(position, metadata);
    checks
}

/// The checks without the network.
fn local(
    variables: &EnvironmentVariables,
    known: &SettingValues,
    storage_options: &StorageOptions,
    home: Option<&Path>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut names: Vec<&str> = storage_options.fixed.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.extend(storage_options.provider.as_ref().map(|provider| provider.name.as_str()));
    if !names.is_empty() {
        checks.push(Area::CREDENTIALS.ok("storage options", format!("given: {}", names.join(", "))));
    }
    checks.extend([azure_storage(variables), azure_resource_manager(variables), aws(variables, home)]);
    checks.push(google(variables, home));
    checks.extend(files::check_viya(variables, known));
    checks.push(sendevent(variables, known));
    checks.extend(ssh(variables, home));
    if home.is_none() {
        checks.push(Area::CREDENTIALS.note("home", "there is no home directory, so no file in it was checked"));
    }
    checks
}

/// Checks which of `identities` the environment gives completely or in part. The first variable of an identity says
/// whether it is present, because identities share the others.
fn check_identities(name: &str, identities: &[IdentityVariables], variables: &EnvironmentVariables) -> Check {
    let (mut complete, mut incomplete) = (Vec::new(), Vec::new());
    for (identity, parts) in identities {
        let found: Vec<Option<&str>> = parts.iter().map(|names| variables.first(names)).collect();
        let present: Vec<&str> = found.iter().copied().flatten().collect();
        if present.len() == found.len() {
            complete.push(format!("{identity} ({})", present.join(", ")));
        } else if found.first().is_some_and(Option::is_some) {
            let missing: Vec<&str> =
                parts.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(names, _)| names[0]).collect();
            incomplete.push(format!("{identity} without {}", missing.join(" and ")));
        }
    }
    match (complete.is_empty(), incomplete.is_empty()) {
        (true, true) => Area::CREDENTIALS.note(name, "nothing in the environment"),
        (false, true) => Area::CREDENTIALS.ok(name, complete.join("; ")),
        (_, false) => {
            let detail = [complete, incomplete].concat().join("; ");
            Area::CREDENTIALS.warning(name, detail, "set what is missing, or unset the rest")
        }
    }
}

fn azure_storage(variables: &EnvironmentVariables) -> Check {
    let check = check_identities("Azure storage", AZURE_STORAGE, variables);
    let advice = "check whether the token is mounted there (workload identity webhook)";
    with_readable_file(check, variables, &["AZURE_FEDERATED_TOKEN_FILE"], advice)
}

fn azure_resource_manager(variables: &EnvironmentVariables) -> Check {
    check_identities("Azure Resource Manager", AZURE_RESOURCE_MANAGER, variables)
}

/// Makes `check` a warning if the file that one of these variables names cannot be read.
fn with_readable_file(check: Check, variables: &EnvironmentVariables, names: &[&str], advice: &str) -> Check {
    let unreadable = names.iter().find_map(|name| {
        let path = variables.get(name)?;
        let error = std::fs::File::open(path).err()?;
        Some(format!("{name} names {path}, which cannot be read: {error}"))
    });
    match unreadable {
        Some(detail) => Check { detail, ..check.warn(advice) },
        None => check,
    }
}

fn aws(variables: &EnvironmentVariables, home: Option<&Path>) -> Check {
    let check = check_identities("AWS", AWS, variables);
    let files = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];
    let check = with_readable_file(check, variables, &files, "check whether the token is mounted there");
    let has_profile = variables.has("AWS_PROFILE") || home.is_some_and(|home| home.join(".aws/credentials").exists());
    if check.status == Status::Note && has_profile {
        return check.advise(
            "profiles (AWS_PROFILE, ~/.aws) are not read: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for example with \
             `aws configure export-credentials --format env`",
        );
    }
    check
}

/// Checks the files that variables name, and the one that `gcloud auth application-default login` writes.
fn google(variables: &EnvironmentVariables, home: Option<&Path>) -> Check {
    if let Some(name) = variables.first(&["GOOGLE_SERVICE_ACCOUNT_KEY"]) {
        return Area::CREDENTIALS.ok("Google", format!("service account key ({name})"));
    }
    let names = ["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_APPLICATION_CREDENTIALS"];
    if let Some(name) = variables.first(&names) {
        let check = files::check_private("Google", Path::new(variables.get(name).unwrap_or_default()), "credentials");
        let check = Check { detail: format!("{} ({name})", check.detail), ..check };
        return match check.status {
            Status::Note => check.warn(&format!("set {name} to a file that exists, or unset it")),
            _ => check,
        };
    }
    let file = home.map(|home| home.join(".config/gcloud/application_default_credentials.json"));
    match file.filter(|file| file.exists()) {
        Some(file) => files::check_private("Google", &file, "application default credentials"),
        None => Area::CREDENTIALS.note("Google", "nothing in the environment"),
    }
}

/// Asks whether the metadata service of Azure exists. The request does not ask for a token.
async fn managed_identity(url: &str) -> Check {
    let name = "Azure managed identity";
    let client = match client::pool(|builder| builder.no_proxy().timeout(METADATA_LIMIT)) {
        Ok(client) => client,
        Err(error) => return Area::CREDENTIALS.note(name, error.full_message()),
    };
    let why = match client.get(url).header("Metadata", "true").send().await {
        Ok(response) if response.status().is_success() => {
            let detail = "the metadata service answers; whether an identity is assigned shows when it is used";
            return Area::CREDENTIALS.ok(name, detail);
        }
        Ok(response) => format!("it says {}", response.status()),
        Err(error) if error.is_timeout() => format!("silent for {} s", METADATA_LIMIT.as_secs()),
        Err(error) if error.is_builder() => error.to_string(),
        Err(_) => "no connection".to_owned(),
    };
    let detail = format!("the metadata service does not answer ({why}): not an Azure VM, or closed");
    Area::CREDENTIALS.note(name, detail)
}

fn sendevent(variables: &EnvironmentVariables, known: &SettingValues) -> Check {
    let (area, name) = (Area::CREDENTIALS, "AutoSys sendevent");
    let set: Vec<&str> =
        ["AUTOSERV", "AUTOSYS", "AUTOUSER"].into_iter().filter(|variable| variables.has(variable)).collect();
    let set = if set.is_empty() { String::new() } else { format!("; {} set", set.join(", ")) };
    let program = known.transport.as_deref().unwrap_or("sendevent");
    let path = match find_program(Path::new(program), variables.get("PATH").map(OsStr::new)) {
        Ok(path) => path,
        Err(Some(file)) => {
            let shown = file.display();
            return area.warning(name, format!("{shown} is not executable{set}"), &format!("chmod +x '{shown}'"));
        }
        Err(None) if known.transport.is_some() => {
            let detail = format!("the configured program {program} was not found{set}");
            return area.warning(name, detail, "install the AutoSys client, or give the program's path as transport");
        }
        Err(None) => {
            return area.note(name, format!("no sendevent in PATH{set}")).advise(
                "only needed to send events to AutoSys from here: install its client, or set transport to its path",
            );
        }
    };
    let shown = path.display();
    if !variables.has("AUTOSERV") {
        let advice =
            "set AUTOSERV, AUTOSYS and AUTOUSER as the profile of the AutoSys client does, or give them to SendEvent";
        return area.warning(name, format!("{shown}, but AUTOSERV is not set{set}"), advice);
    }
    area.ok(name, format!("{shown}{set}"))
}

/// The file names of keys in the order of OpenSSH (ssh(1), IdentityFile).
const KEYS: [&str; 4] = ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk"];

fn ssh(variables: &EnvironmentVariables, home: Option<&Path>) -> Vec<Check> {
    let area = Area::CREDENTIALS;
    let mut checks = vec![match variables.get("SSH_AUTH_SOCK") {
        None => area.note("SSH agent", "SSH_AUTH_SOCK is not set"),
        Some(path) if Path::new(path).exists() => area.ok("SSH agent", format!("at {path}")),
        Some(path) => {
            let detail = format!("SSH_AUTH_SOCK names {path}, which does not exist");
            area.warning("SSH agent", detail, "start ssh-agent again, or unset it")
        }
    }];
    let Some(directory) = home.map(|home| home.join(".ssh")) else { return checks };
    let keys: Vec<PathBuf> = KEYS.iter().map(|name| directory.join(name)).filter(|path| path.exists()).collect();
    if keys.is_empty() {
        checks.push(area.note("SSH keys", format!("none in {}", directory.display())));
    }
    checks.extend(keys.iter().map(|path| files::check_private("SSH keys", path, "a private key")));
    let hosts = directory.join("known_hosts");
    checks.push(match std::fs::read_to_string(&hosts) {
        Ok(text) => {
            let count = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
            area.ok("SSH known hosts", format!("{count} in {}", hosts.display()))
        }
        Err(_) => area.note("SSH known hosts", format!("no {}", hosts.display())),
    });
    checks
}

#[cfg(test)]
mod tests;
