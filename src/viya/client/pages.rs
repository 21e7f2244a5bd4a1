//! Page after page of a collection, however the service at hand tells where the next one is.

use std::collections::HashSet;

use serde_json::Value;

use super::{Call, ViyaClient};
use crate::error::Result;

/// Pages at most: a server whose links go round in a circle must not hold us.
const MOST: usize = 5000;

/// The pages of a collection. `next` links are followed. Where a service gives none at all, offsets are counted on until a
/// page brings nothing new: SAS's `count` may be too high, and a page may be shorter than was asked for.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    client: &'a ViyaClient,
    call: Call<'a>,
    at: At,
    /// Whether the service gave a link on any page: then the page without one is the last.
    linked: bool,
    visited: HashSet<String>,
    /// Items so far.
    read: usize,
    /// What identifies the first item of the page before: a service that ignores offsets gives it again.
    first: Option<Value>,
    pages: usize,
}

#[derive(Debug)]
enum At {
    Start,
    Link(String),
    Offset(usize),
    End,
}

impl<'a> Pages<'a> {
    /// The pages of `call`, which says `limit` but not `start`.
    pub(crate) fn new(client: &'a ViyaClient, call: Call<'a>) -> Self {
        let visited = HashSet::new();
        Self { client, call, at: At::Start, linked: false, visited, read: 0, first: None, pages: 0 }
    }

    /// The items of the next page; none after the last.
    ///
    /// # Errors
    /// Those of any call.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Value>>> {
        self.pages += 1;
        let page = match &self.at {
            At::End => return Ok(None),
            _ if self.pages > MOST => return Ok(None),
            At::Start => self.client.page(&self.call.clone().query("start", "0"), None).await?,
            At::Offset(start) => self.client.page(&self.call.clone().query("start", start.to_string()), None).await?,
            At::Link(link) => self.client.page(&self.call, Some(link)).await?,
        };
        let first = page.items.first().map(|item| item.get("id").unwrap_or(item).clone());
        if matches!(self.at, At::Offset(_)) && (first.is_none() || first == self.first) {
            self.at = At::End;
            return Ok(None);
        }
        self.first = first;
        self.read += page.items.len();
        self.at = match page.next {
            Some(link) if self.visited.insert(link.clone()) => {
                self.linked = true;
                At::Link(link)
            }
            // Round in a circle.
            Some(_) => At::End,
            None if self.linked || page.items.is_empty() => At::End,
            None if page.count.is_some_and(|count| count <= self.read) => At::End,
            None => At::Offset(self.read),
        };
        Ok(Some(page.items))
    }
}
