//! The pages of a collection, however the service names the next one.

use std::collections::HashSet;

use serde_json::Value;

use super::ViyaClient;
use super::request::{ViyaRequest, json};
use crate::error::{Error, ErrorKind, Result};
use crate::viya::json::text;

/// Most pages that are read. Links that form a circle are recognized; a server could also name new ones without end.
pub(in crate::viya) const MOST_PAGES: usize = if cfg!(test) { 20 } else { 5000 };

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
