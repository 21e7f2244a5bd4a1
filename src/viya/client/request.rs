//! One request to SAS Viya, what an error response means, and the pages of a collection, however the service names the next one.

use std::collections::HashSet;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::ViyaClient;
use crate::error::{Error, ErrorKind, Result};
use crate::http::Response;
use crate::viya::json::{error_text, text};

/// Media type of every SAS collection.
pub(crate) const COLLECTION: &str = "application/vnd.sas.collection+json";

/// Most pages that are read. Links that form a circle are recognized; a server could also name new ones without end.
pub(in crate::viya) const MOST_PAGES: usize = if cfg!(test) { 20 } else { 5000 };

/// What SAS Viya is asked. Paths and links are always resolved on the client's own server, so that no response can send
/// the token to another one.
#[derive(Debug, Clone)]
pub(crate) struct ViyaRequest<'a> {
    pub method: Method,
    pub path: &'a str,
    pub query: Vec<(&'a str, String)>,
    pub accept: &'a str,
    pub accept_item: Option<&'a str>,
    pub body: Option<(&'a str, Bytes)>,
}

impl<'a> ViyaRequest<'a> {
    pub(crate) fn new(method: Method, path: &'a str, accept: &'a str) -> Self {
        Self { method, path, query: Vec::new(), accept, accept_item: None, body: None }
    }

    pub(crate) fn get(path: &'a str, accept: &'a str) -> Self {
        Self::new(Method::GET, path, accept)
    }

    pub(crate) fn query(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The address of the request on the server `base`.
    pub(super) fn url(&self, base: &Url) -> Result<Url> {
        let found = base.join(self.path).map_err(|e| {
            let text = format!("SAS Viya gave a link that is not an address: {:?}", self.path);
            Error::new(ErrorKind::Server, text).with_source(e)
        })?;
        let mut url = base.clone();
        url.set_path(found.path());
        url.set_query(found.query());
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(self.query.iter().map(|(name, value)| (*name, value.as_str())));
        }
        Ok(url)
    }
}

/// A SAS filter literal: quotes are doubled.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether the server refuses a filter, so that the list is read without it.
pub(crate) fn is_filter_refused(e: &Error) -> bool {
    !e.is_retryable() && matches!(e.kind(), ErrorKind::Server | ErrorKind::NotFound)
}

/// Whether the same request may succeed later.
pub(crate) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The body as JSON. The HTML page of a proxy is an error of the server, and is not parsed.
pub(crate) fn json(response: &Response) -> Result<Value> {
    response.json(response.url.as_str(), "base_url is SAS Viya itself")
}

/// An error response as an error that says what was asked, the status and the server's own reasons.
pub(crate) fn refusal(request: &ViyaRequest<'_>, response: &Response) -> Error {
    let kind = response.content_type();
    // The page of a proxy or a login, and not a response of a SAS service.
    let is_html = kind.to_ascii_lowercase().contains("html");
    let reasons = match json(response).map(|value| error_text(&value)).unwrap_or_default() {
        reasons if !reasons.is_empty() => reasons,
        _ if response.body.is_empty() => "no reason given".to_owned(),
        _ => format!("the reason was {kind}, not a SAS error"),
    };
    let (kind, advice) = match response.status.as_u16() {
        401 => (ErrorKind::Authentication, "; log in again"),
        403 => (ErrorKind::Forbidden, "; this user is not allowed to: ask a SAS administrator"),
        // A proxy that does not reach SAS answers so too, and its page says nothing about what was asked for.
        404 | 410 if is_html => (ErrorKind::Server, "; try again later, and check base_url"),
        404 | 410 => (ErrorKind::NotFound, ""),
        409 | 412 | 428 => (ErrorKind::Conflict, ""),
        300..=399 => (ErrorKind::Server, "; it redirects elsewhere: check base_url"),
        429 | 500..=599 => (ErrorKind::Server, "; try again later"),
        _ => (ErrorKind::Server, ""),
    };
    let (method, url, status) = (&request.method, &response.url, response.status);
    let retryable = is_transient(status) || status.as_u16() == 500 || (kind == ErrorKind::Server && is_html);
    Error::new(kind, format!("{method} {url} was answered with {status}: {reasons}{advice}")).with_retryable(retryable)
}

/// One page of a SAS collection.
#[derive(Debug)]
pub(crate) struct Page {
    pub items: Vec<Value>,
    next: Option<String>,
    /// How many items there are in all, according to the service. Some services count more than the user may see.
    count: Option<usize>,
}

/// The pages of a collection. `next` links are followed. For a service without links, offsets are counted until a page
/// brings nothing new: SAS's `count` may be too high, and a page may be shorter than requested.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    client: &'a ViyaClient,
    request: ViyaRequest<'a>,
    position: PagePosition,
    /// Whether the service gave a link on any page: then the page without one is the last.
    has_links: bool,
    visited: HashSet<String>,
    items_read: usize,
    /// What identifies the first item of the previous page. A service that ignores offsets returns it again.
    first: Option<Value>,
    pages_read: usize,
}

#[derive(Debug)]
enum PagePosition {
    Start,
    Link(String),
    Offset(usize),
    End,
}

impl<'a> Pages<'a> {
    /// The pages of `request`, which has a `limit` but no `start`.
    pub(crate) fn new(client: &'a ViyaClient, request: ViyaRequest<'a>) -> Self {
        let (position, visited) = (PagePosition::Start, HashSet::new());
        Self { client, request, position, has_links: false, visited, items_read: 0, first: None, pages_read: 0 }
    }

    /// The items of the next page; `None` after the last one.
    ///
    /// # Errors
    /// Those of any call.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>> {
        self.pages_read += 1;
        let from = |start: usize| self.request.clone().query("start", start.to_string());
        let page = match &self.position {
            PagePosition::End => return Ok(None),
            // A list that is cut without an error would submit jobs again that are on a later page.
            _ if self.pages_read > MOST_PAGES => {
                let text = format!(
                    "{} has more than {MOST_PAGES} pages, which is more than is read: delete what is old there",
                    self.request.path
                );
                return Err(Error::new(ErrorKind::Server, text));
            }
            PagePosition::Start => self.client.page(&from(0)).await?,
            PagePosition::Offset(start) => self.client.page(&from(*start)).await?,
            PagePosition::Link(link) => {
                let request = ViyaRequest { path: link, query: Vec::new(), ..self.request.clone() };
                self.client.page(&request).await?
            }
        };
        let first = page.items.first().map(|item| item.get("id").unwrap_or(item).clone());
        if matches!(self.position, PagePosition::Offset(_)) && (first.is_none() || first == self.first) {
            self.position = PagePosition::End;
            return Ok(None);
        }
        self.first = first;
        self.items_read += page.items.len();
        self.position = match page.next {
            Some(link) if self.visited.insert(link.clone()) => {
                self.has_links = true;
                PagePosition::Link(link)
            }
            // The links form a circle.
            Some(_) => PagePosition::End,
            None if self.has_links || page.items.is_empty() => PagePosition::End,
            None if page.count.is_some_and(|count| count <= self.items_read) => PagePosition::End,
            None => PagePosition::Offset(self.items_read),
        };
        Ok(Some(page.items))
    }
}

impl ViyaClient {
    /// All items of a collection.
    pub(crate) async fn items(&self, request: ViyaRequest<'_>) -> Result<Vec<Value>> {
        let (mut items, mut pages) = (Vec::new(), Pages::new(self, request));
        while let Some(page) = pages.next().await? {
            items.extend(page);
        }
        Ok(items)
    }

    /// One page of a collection.
    pub(crate) async fn page(&self, request: &ViyaRequest<'_>) -> Result<Page> {
        let response = self.send(request).await?;
        let mut value = json(&response)?;
        let next = value.get("links").and_then(Value::as_array).and_then(|links| {
            let link = links.iter().find(|link| text(link, "rel") == Some("next"))?;
            // A relative link is relative to its page.
            response.url.join(text(link, "href").or_else(|| text(link, "uri"))?).ok().map(String::from)
        });
        let count = value.get("count").and_then(Value::as_u64).and_then(|count| usize::try_from(count).ok());
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        Ok(Page { items, next, count })
    }
}
