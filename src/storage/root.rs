//! Parses a root: a local directory, or a path in a container or bucket.
//!
//! The path of a local directory is made absolute, and its symbolic links are resolved.

use std::path::{Component, Path as FilePath, PathBuf};

use object_store::path::Path;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::http::address::has_userinfo;
use crate::runtime;

/// The kind of store of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreKind {
    /// A directory of this machine.
    Local,
    /// Azure Blob Storage or Data Lake Storage Gen2, or OneLake.
    Azure,
    /// Amazon S3, or a server with the same protocol.
    S3,
    /// Google Cloud Storage.
    Google,
}

impl StoreKind {
    /// The kind of store for a URI scheme in lower case.
    pub(super) fn of(scheme: &str) -> Option<Self> {
        match scheme {
            "file" => Some(Self::Local),
            "abfs" | "abfss" | "az" | "azure" => Some(Self::Azure),
            "s3" | "s3a" => Some(Self::S3),
            "gs" => Some(Self::Google),
            _ => None,
        }
    }

    /// The usual URI scheme of this kind, for error messages.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::Local => "file",
            Self::Azure => "abfss",
            Self::S3 => "s3",
            Self::Google => "gs",
        }
    }
}

/// A valid root.
#[derive(Debug)]
pub(super) enum Root {
    Local(PathBuf),
    Cloud(Bucket),
}

/// A path in a container or bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) kind: StoreKind,
    /// Ends in `/`; holds no credentials.
    pub(super) url: Url,
    /// The container or bucket.
    pub(super) name: String,
    /// The storage account and the URL of its blob service, if the root names them.
    pub(super) account: Option<(String, String)>,
}

/// The domains of Azure storage accounts: the public and the sovereign clouds, accounts with their own DNS zone, and
/// OneLake. Another domain could be a typing error, and credentials would be sent to it.
const AZURE_DOMAINS: [&str; 5] = [
    "core.windows.net",
    "core.chinacloudapi.cn",
    "core.usgovcloudapi.net",
    "storage.azure.net",
    "fabric.microsoft.com",
];

/// Parses `root`.
///
/// No error repeats a URI, because it can hold a password or a signature. In a malformed URI, their place is unknown.
pub(super) fn parse(root: &str) -> Result<Root> {
    if root.trim().is_empty() {
        return Err(Error::invalid("the storage root is empty; give a directory such as './ledger'"));
    }
    if root.contains('\0') {
        return Err(Error::invalid("the storage root contains a NUL character, which no store takes"));
    }
    let Some((scheme, rest)) = scheme(root) else { return directory_of_path(root).map(Root::Local) };
    let kind = match StoreKind::of(&scheme) {
        Some(StoreKind::Local) => return directory_of_uri(root).map(Root::Local),
        Some(kind) => kind,
        None if scheme == "dbfs" => return Err(no_atomic_create("dbfs:/…")),
        None => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "roots that begin with '{scheme}://' are not supported; use a local directory, \
                     abfss://container@account.dfs.core.windows.net/path, az://container/path, s3://bucket/path or \
                     gs://bucket/path"
                ),
            ));
        }
    };
    if !rest.starts_with("//") {
        return Err(Error::invalid(format!(
            "a root that begins with '{scheme}:' needs two slashes after it, as in {scheme}://…; give it as text, \
             because pathlib drops one of them"
        )));
    }
    bucket(&scheme, kind, root).map(Root::Cloud)
}

/// The URI scheme of `root` in lower case, and the text after the colon. `None` for a path: a directory can have the name
/// `a:b`.
fn scheme(root: &str) -> Option<(String, &str)> {
    let (scheme, rest) = root.split_once(':')?;
    let lower = scheme.to_ascii_lowercase();
    let path = matches!(lower.as_str(), "file" | "dbfs") && rest.starts_with('/');
    let cloud = StoreKind::of(&lower).is_some_and(|kind| kind != StoreKind::Local);
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    (path || cloud || named && rest.starts_with("//")).then_some((lower, rest))
}

fn bucket(scheme: &str, kind: StoreKind, root: &str) -> Result<Bucket> {
    let form = match kind {
        StoreKind::Azure if matches!(scheme, "az" | "azure") => format!("{scheme}://container/path"),
        StoreKind::Azure => format!("{scheme}://container@account.dfs.core.windows.net/path"),
        _ => format!("{scheme}://bucket/path"),
    };
    let refused = |why: &str| Error::invalid(format!("the {scheme}:// root {why}; write it as {form}"));
    if root.chars().any(char::is_control) {
        return Err(refused("contains a control character"));
    }
    // Without the error of the parser, which could repeat a part of the URI.
    let parsed = Url::parse(root).map_err(|_| refused("is not a URI"))?;
    // In an Azure root, the container is where other addresses have the user.
    if parsed.password().is_some() || kind != StoreKind::Azure && has_userinfo(&parsed) {
        return Err(refused(
            "holds a user or password, which do not belong in a URI, as URIs are shown and logged: credentials go into \
             storage_options or the environment",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(refused(
            "has a query (after '?') or a fragment (after '#'), where signatures do not belong, as URIs are shown and \
             logged: credentials go into storage_options or the environment, and a '?' in a name is written %3F, a '#' \
             %23",
        ));
    }
    if parsed.port().is_some() {
        return Err(refused(
            "names a port: the address of a server of your own goes into storage_options, as the endpoint",
        ));
    }
    let host = parsed.host_str().unwrap_or_default();
    let (name, account) = match parsed.username() {
        "" => (host.to_owned(), None),
        container => {
            let container = Path::from_url_path(container).map_err(|_| refused("has a container that is not UTF-8"))?;
            let account = account(host).ok_or_else(|| {
                refused(
                    "is not at a host that is known to serve Azure storage: for another one, leave the account out, as in \
                     az://container/path, and give azure_storage_account_name and azure_storage_endpoint in storage_options",
                )
            })?;
            (container.to_string(), Some(account))
        }
    };
    // Includes the characters that old containers and buckets, and those of OneLake, can have.
    let valid = |c: char| c.is_ascii_alphanumeric() || "-._$".contains(c) || c == ' ' && kind == StoreKind::Azure;
    if name.is_empty() || !name.chars().all(valid) {
        return Err(refused("does not name a container or bucket"));
    }
    if kind == StoreKind::Azure && account.is_none() && name.contains('.') {
        return Err(refused("names a host, but no container"));
    }
    let segments: Vec<&str> = parsed.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let path = Path::from_url_path(segments.join("/"))
        .map_err(|_| refused("has a path with '.', '..', an empty part or something other than UTF-8 in it"))?;
    Ok(Bucket { kind, url: normalize(parsed, &path)?, name, account })
}

/// Replaces the path of `url` by `path` and a `/` at the end, so that both name the same objects.
fn normalize(mut url: Url, path: &Path) -> Result<Url> {
    url.set_path("/");
    url.path_segments_mut()
        .map_err(|()| Error::invalid("the root cannot have a path; write it as scheme://bucket/path"))?
        .clear()
        .extend(path.parts().map(|part| part.as_ref().to_owned()))
        .push("");
    Ok(url)
}

/// The storage account at `host`, and the URL of its blob service. That service also serves Data Lake accounts.
fn account(host: &str) -> Option<(String, String)> {
    let host = host.to_ascii_lowercase();
    let (account, rest) = host.split_once('.')?;
    // With its own DNS zone: account.z00.dfs.storage.azure.net
    let (zone, service_and_domain) = match rest.split_once('.')? {
        (zone, rest) if zone.starts_with('z') && zone[1..].bytes().all(|b| b.is_ascii_digit()) => {
            (format!("{zone}."), rest)
        }
        _ => (String::new(), rest),
    };
    let (service, domain) = service_and_domain.split_once('.')?;
    let known = matches!(service, "dfs" | "blob") && AZURE_DOMAINS.contains(&domain);
    let named = !account.is_empty() && account.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (known && named).then(|| (account.to_owned(), format!("https://{account}.{zone}blob.{domain}")))
}

/// Mounts whose drivers do not create files atomically (no `link(2)`): two writers would overwrite each other's commits.
const MOUNTS_WITHOUT_ATOMIC_CREATE: [&str; 3] = ["dbfs", "Volumes", "Workspace"];

/// Resolves the directory of the `file:` URI `root`.
fn directory_of_uri(root: &str) -> Result<PathBuf> {
    let path = Url::parse(root)
        .ok()
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .and_then(|url| url.to_file_path().ok())
        .ok_or_else(|| {
            Error::invalid(
                "the file: root is not a URI of a local directory; write it as file:///path/to/directory, with %3F for \
                 '?' and %23 for '#'",
            )
        })?;
    resolve(&path)
}

/// Resolves the directory of the path `root`. `~` and `~/…` are in the home directory.
fn directory_of_path(root: &str) -> Result<PathBuf> {
    let Some(rest) = root.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        if is_table_name(root) && !FilePath::new(root).exists() {
            return Err(Error::invalid(format!(
                "'{root}' is the name of a table, where a directory or a URI is expected; for a new directory of this name give \
                 ./{root}"
            )));
        }
        return resolve(FilePath::new(root));
    };
    let home = runtime::home_directory().ok_or_else(|| {
        Error::invalid(format!(
            "'{root}' is in the home directory, and there is none: set HOME, or give the whole path"
        ))
    })?;
    resolve(&home.join(rest.trim_start_matches('/')))
}

/// Whether `root` looks like `schema.table` or `catalog.schema.table`.
fn is_table_name(root: &str) -> bool {
    let is_word = |part: &str| {
        !part.starts_with(|c: char| c.is_ascii_digit())
            && !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let parts: Vec<&str> = root.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.into_iter().all(is_word)
}

fn resolve(path: &FilePath) -> Result<PathBuf> {
    let shown = path.display();
    let absolute = std::path::absolute(path).map_err(|e| {
        Error::invalid(format!(
            "the storage root '{shown}' is relative to the working directory, which cannot be found (was it deleted?): \
             change to another directory, or give the whole path"
        ))
        .with_source(e)
    })?;
    refuse_mounts(&absolute)?;
    let resolved = resolve_links(&absolute)?;
    refuse_mounts(&resolved)?;
    Ok(resolved)
}

fn refuse_mounts(path: &FilePath) -> Result<()> {
    let first =
        path.components().find_map(|part| if let Component::Normal(name) = part { name.to_str() } else { None });
    match first.is_some_and(|name| MOUNTS_WITHOUT_ATOMIC_CREATE.contains(&name)) {
        true => Err(no_atomic_create(path.display())),
        false => Ok(()),
    }
}

fn no_atomic_create(root: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "'{root}' is a Databricks mount, where files cannot be created atomically, so that concurrent writers would lose rows; \
             use the storage account itself, abfss://container@account.dfs.core.windows.net/path, or a directory on a local disk"
        ),
    )
}

/// Resolves the links in the part of the path that exists, and appends the rest unchanged.
fn resolve_links(absolute: &FilePath) -> Result<PathBuf> {
    let root = absolute.display();
    let cannot = |e: std::io::Error| {
        Error::new(
            ErrorKind::Storage,
            format!("the storage root '{root}' cannot be accessed; check the permissions of this user"),
        )
        .with_source(e)
    };
    for ancestor in absolute.ancestors() {
        match std::fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => {
                let mut resolved = std::fs::canonicalize(ancestor).map_err(cannot)?;
                for part in absolute.strip_prefix(ancestor).unwrap_or(FilePath::new("")).components() {
                    match part {
                        Component::ParentDir => _ = resolved.pop(),
                        part => resolved.push(part),
                    }
                }
                return Ok(resolved);
            }
            Ok(_) => {
                let file = ancestor.display();
                return Err(Error::invalid(format!(
                    "the storage root '{root}' needs '{file}' to be a directory, but it is a file; give a directory"
                )));
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(cannot(e)),
        }
    }
    Err(Error::invalid(format!("the storage root '{root}' cannot be resolved")))
}
