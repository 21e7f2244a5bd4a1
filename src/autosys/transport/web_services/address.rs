//! The addresses of the web services, and what they must be.

use url::Url;

use super::WebServicesOptions;
use crate::autosys::event::JobName;
use crate::azure::is_loopback;
use crate::error::{Error, Result};
use crate::viya::client::without_userinfo;

/// Where the services are below the host, if `base_url` does not say it.
const USUAL_PATH: &str = "/AEWS";

/// Every address that is used; all have one origin.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) change_status: Url,
    pub(super) start: Url,
    pub(super) force_start: Url,
    status: Option<(Url, String)>,
    /// Scheme, host and port, to show.
    pub(super) server: String,
    loopback: bool,
}

impl Addresses {
    pub(super) fn new(options: &WebServicesOptions) -> Result<Self> {
        let base = base(&options.base_url, options.allow_http)?;
        let prefix = path("prefix", &base, &options.prefix)?;
        let event = |what: &str, name: &str| {
            if name.is_empty() || !name.bytes().all(fits) || name.bytes().all(|b| b == b'.') {
                return Err(Error::invalid(format!(
                    "the event name {name:?} for {what} must be one part of a path, such as change-status-job"
                )));
            }
            let mut url = base.clone();
            url.set_path(&format!("{}/{name}", prefix.trim_end_matches('/')));
            Ok(url)
        };
        let status = match options.status_path.as_deref() {
            Some(template) if template.matches("{job}").count() != 1 => {
                return Err(Error::invalid(format!(
                    "status_path {template:?} must have {{job}} in it once, as in \"job-run-info/{{job}}\""
                )));
            }
            // The query, as in job?filter=name=={job}, is kept as it is.
            Some(template) => {
                let (before, query) = template.split_once('?').unwrap_or((template, ""));
                let path = path("status_path", &base, &before.replace("{job}", "_job_"))?.replace("_job_", "{job}");
                if !query.bytes().all(|b| fits(b) || b"={}&,;:*()$'".contains(&b)) {
                    return Err(Error::invalid(format!(
                        "the query of status_path {template:?} has characters that must be escaped there"
                    )));
                }
                Some(if query.is_empty() { path } else { format!("{path}?{query}") })
            }
            None => None,
        };
        Ok(Self {
            change_status: event("CHANGE_STATUS", &options.events.change_status)?,
            start: event("STARTJOB", &options.events.start)?,
            force_start: event("FORCE_STARTJOB", &options.events.force_start)?,
            status: status.map(|template| (base.clone(), template)),
            server: base.origin().ascii_serialization(),
            loopback: is_loopback(&base),
        })
    }

    /// Whether they are on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Where the status of a job is read.
    pub(super) fn status(&self, job_id: &str) -> Result<Url, String> {
        let job = JobName::parse(job_id).map_err(|e| e.to_string())?;
        let (base, template) = self.status.as_ref().ok_or("no status_path was given")?;
        if matches!(job.as_str(), "." | "..") {
            // Such a part of a path means another path, escaped or not.
            return Err(format!("the job name {job} cannot be part of a web address"));
        }
        // The one character of job names that means something in an address.
        let filled = template.replace("{job}", &job.as_str().replace('#', "%23"));
        let (path, query) = filled.split_once('?').map_or((filled.as_str(), None), |(path, query)| (path, Some(query)));
        let mut url = base.clone();
        url.set_path(path);
        url.set_query(query);
        Ok(url)
    }
}

fn fits(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

fn base(text: &str, allow_http: bool) -> Result<Url> {
    let shown = without_userinfo(text);
    let refuse = |why: &str| {
        Error::invalid(format!("base_url {shown:?} {why}: give an address such as https://autosys.example.com:9443"))
    };
    let mut url = Url::parse(text.trim()).map_err(|e| refuse("is not a URL").with_source(e))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("must not hold a user name or password (there are user=, password= and token=)"));
    }
    if url.host_str().is_none_or(str::is_empty) || !matches!(url.scheme(), "http" | "https") {
        return Err(refuse("is not https"));
    }
    if url.scheme() == "http" && !is_loopback(&url) && !allow_http {
        return Err(refuse(
            "is not https, so that credentials and events would cross the network in the clear (allow_http=True allows it)",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("has more than a host, a port and a path"));
    }
    if url.path() == "/" {
        url.set_path(USUAL_PATH);
    }
    Ok(url)
}

/// The path that `text` means: below that of `base`, or below its host.
fn path(what: &str, base: &Url, text: &str) -> Result<String> {
    let text = text.trim_end_matches('/');
    let relative = text.strip_prefix('/').unwrap_or(text);
    let part = |part: &str| !part.is_empty() && part.bytes().all(fits) && !part.bytes().all(|b| b == b'.');
    if !relative.split('/').all(part) {
        return Err(Error::invalid(format!(
            "{what} {text:?} must be a path such as event or /AEWS/api/event: letters, digits and -._~ between slashes"
        )));
    }
    let below = if text.starts_with('/') { "" } else { base.path().trim_end_matches('/') };
    Ok(format!("{below}/{relative}"))
}
