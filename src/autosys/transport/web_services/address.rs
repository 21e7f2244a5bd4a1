//! The addresses of the web services, and their checks.

use url::Url;

use super::WebServicesOptions;
use crate::autosys::event::JobName;
use crate::error::{Error, Result};
use crate::http::address::AddressRules;

/// The path of the services, when `base_url` has none.
const DEFAULT_PATH: &str = "/AEWS";

/// All addresses that are used. They have one origin.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) change_status: Url,
    pub(super) start: Url,
    pub(super) force_start: Url,
    status: Option<(Url, String)>,
    /// Scheme, host and port.
    pub(super) server: Url,
}

impl Addresses {
    pub(super) fn new(options: &WebServicesOptions) -> Result<Self> {
        let base = base(&options.base_url, options.allow_http)?;
        let prefix = path("prefix", &base, &options.prefix)?;
        let event = |what: &str, name: &str| {
            if !is_segment(name) {
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
            // The query, as in job?filter=name=={job}, is used unchanged.
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
            server: base.join("/").unwrap_or_else(|_| base.clone()),
        })
    }

    /// The address of a job's status.
    pub(super) fn status(&self, job_id: &str) -> Result<Url, String> {
        let job = JobName::parse(job_id).map_err(|e| e.to_string())?;
        let (base, template) = self.status.as_ref().ok_or("no status_path was given")?;
        if matches!(job.as_str(), "." | "..") {
            // As a part of a path, the name would change the path, escaped or not.
            return Err(format!("the job name {job} cannot be part of a web address"));
        }
        // The only character of job names with a meaning in an address.
        let filled = template.replace("{job}", &job.as_str().replace('#', "%23"));
        let (path, query) = filled.split_once('?').map_or((filled.as_str(), None), |(path, query)| (path, Some(query)));
        let mut url = base.clone();
        url.set_path(path);
        url.set_query(query);
        Ok(url)
    }
}

/// Whether `text` is one part of a path that stays in its place.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(fits) && !text.bytes().all(|b| b == b'.')
}

fn fits(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~".contains(&b)
}

fn base(text: &str, allow_http: bool) -> Result<Url> {
    let https_only = "so that credentials and events would cross the network in clear text (allow_http=True allows it)";
    let rules = AddressRules {
        name: "base_url",
        example: "https://autosys.example.com:9443",
        credentials: " (there are user=, password= and token=)",
        https_only: (!allow_http).then_some(https_only),
        with_path: true,
    };
    let mut url = rules.parse(text)?;
    if url.path() == "/" {
        url.set_path(DEFAULT_PATH);
    }
    Ok(url)
}

/// The path of `text`: below that of `base`, or with a leading slash below its host.
fn path(what: &str, base: &Url, text: &str) -> Result<String> {
    let text = text.trim_end_matches('/');
    let relative = text.strip_prefix('/').unwrap_or(text);
    if !relative.split('/').all(is_segment) {
        return Err(Error::invalid(format!(
            "{what} {text:?} must be a path such as event or /AEWS/api/event: letters, digits and -._~ between slashes"
        )));
    }
    let below = if text.starts_with('/') { "" } else { base.path().trim_end_matches('/') };
    Ok(format!("{below}/{relative}"))
}
