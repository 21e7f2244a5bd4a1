//! One request to Resource Manager.

use reqwest::Method;
use serde_json::Value;
use url::Url;

use super::resource_id::escaped;

/// What Resource Manager is asked.
#[derive(Debug, Clone)]
pub struct ArmRequest {
    pub(super) method: Method,
    /// A path on Resource Manager's own host, escaped.
    path: String,
    query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
    pub(super) permission: Option<&'static str>,
}

impl ArmRequest {
    /// A GET of `path` with a version of the interface. ARM refuses a request without a version.
    pub fn get(path: impl Into<String>, api_version: &str) -> Self {
        let query = vec![("api-version", api_version.to_owned())];
        Self { method: Method::GET, path: path.into(), query, body: None, permission: None }
    }

    /// A POST of `body`. It is repeated only where the server says that it did nothing (401 and 429).
    pub fn post(path: impl Into<String>, api_version: &str, body: Value) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path, api_version) }
    }

    /// A GET of the status of an operation, for errors. Its address is not shown, because it holds a token.
    pub(super) fn operation() -> Self {
        Self { query: Vec::new(), ..Self::get("of the operation", "") }
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Names the permission that the request needs, for the error when it is missing.
    pub fn needing(mut self, permission: &'static str) -> Self {
        self.permission = Some(permission);
        self
    }

    /// The path of a listing: `kind` of `provider` in the subscription, or in one of its resource groups.
    pub fn listing_path(subscription: &str, resource_group: Option<&str>, provider: &str, kind: &str) -> String {
        let mut segments = vec!["subscriptions", subscription];
        if let Some(group) = resource_group {
            segments.extend(["resourceGroups", group]);
        }
        segments.extend(["providers", provider, kind]);
        escaped(&segments)
    }

    /// The request for display, without the query, which may hold a continuation token.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The address of the request on the server `arm`.
    pub(super) fn url(&self, arm: &Url) -> Url {
        let mut url = arm.clone();
        url.set_path(&self.path);
        url.query_pairs_mut().extend_pairs(self.query.iter().map(|(name, value)| (*name, value.as_str())));
        url
    }
}
