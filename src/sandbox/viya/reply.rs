//! What all answers have in common: error bodies, collection envelopes, paging and filters.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::filter::Filter;

/// The media type of listings.
pub const COLLECTION: &str = "application/vnd.sas.collection+json";

/// An answer, also where it is an error.
pub type Reply = Response;

/// An answer, or the error that takes its place.
pub type ReplyResult = axum::response::Result<Reply>;

/// Items per page when the client does not ask for a number. Source: the self links of SAS's own samples.
const DEFAULT_LIMIT: usize = 10;

/// The query parameters of every listing.
#[derive(Debug, Default, Deserialize)]
pub struct ListQuery {
    pub start: Option<usize>,
    pub limit: Option<usize>,
    pub filter: Option<String>,
    #[serde(rename = "sortBy")]
    pub sort_by: Option<String>,
}

/// A JSON body of the given media type.
pub fn body(status: StatusCode, media_type: &'static str, value: &Value) -> Reply {
    (status, [(header::CONTENT_TYPE, media_type)], value.to_string()).into_response()
}

/// A plain text body.
pub fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    (status, [(header::CONTENT_TYPE, "text/plain")], text.into()).into_response()
}

/// An `application/vnd.sas.error+json`. As on SAS Viya the useful text is often only in the nested error: `reason`.
pub fn error(status: StatusCode, message: &str, reason: Option<&str>) -> Reply {
    let code = status.as_u16();
    let nested: Vec<Value> = reason
        .map(|reason| json!({"version": 2, "httpStatusCode": code, "errorCode": 5001, "message": reason, "details": [], "errors": [], "links": []}))
        .into_iter()
        .collect();
    let value = json!({
        "version": 2, "httpStatusCode": code, "errorCode": 0, "id": uuid::Uuid::new_v4().to_string(), "message": message,
        "details": [format!("traceId: {}", uuid::Uuid::new_v4().simple())], "remediation": "", "errors": nested, "links": [],
    });
    body(status, "application/vnd.sas.error+json", &value)
}

/// A resource of the given media type, if it exists.
pub fn one(media_type: &'static str, what: &str, id: &str, found: Option<Value>) -> Reply {
    found.map_or_else(|| not_found(what, id), |found| body(StatusCode::OK, media_type, &found))
}

/// The answer for a resource that does not exist.
pub fn not_found(what: &str, id: &str) -> Reply {
    let reason = format!("The {what} \"{id}\" does not exist.");
    error(StatusCode::NOT_FOUND, &format!("The {what} could not be found."), Some(&reason))
}

/// A link of an item or a collection.
pub fn link(method: &str, rel: &str, uri: &str, media_type: &str) -> Value {
    json!({"method": method, "rel": rel, "href": uri, "uri": uri, "type": media_type})
}

/// The page of `found` that `listing` asks for, in the envelope that all SAS Viya services share. `describe` gives an item:
/// only those of the page are described.
pub fn page<T>(
    path: &str,
    name: &str,
    accept: &str,
    listing: &ListQuery,
    found: &[T],
    describe: impl Fn(&T) -> Value,
) -> Value {
    let (start, limit) = (listing.start.unwrap_or(0), listing.limit.unwrap_or(DEFAULT_LIMIT).max(1));
    let count = found.len();
    let items: Vec<Value> = found.iter().skip(start).take(limit).map(describe).collect();
    let address = |start: usize| {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (key, value) in [("filter", &listing.filter), ("sortBy", &listing.sort_by)] {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        query.append_pair("start", &start.to_string()).append_pair("limit", &limit.to_string());
        format!("{path}?{}", query.finish())
    };
    let mut links = Vec::new();
    let mut add =
        |rel: &str, start: usize| links.push(link("GET", rel, &address(start), "application/vnd.sas.collection"));
    add("self", start);
    add("first", 0);
    if start > 0 {
        add("prev", start.saturating_sub(limit));
    }
    if start.saturating_add(limit) < count {
        add("next", start + limit);
        add("last", (count - 1) / limit * limit);
    }
    links.push(link("GET", "collection", path, "application/vnd.sas.collection"));
    json!({"version": 2, "name": name, "accept": accept, "start": start, "limit": limit, "count": count, "items": items, "links": links})
}

/// The listing's filter, if it has one, or why it is not understood.
pub fn filter(listing: &ListQuery) -> Result<Option<Filter>, String> {
    listing.filter.as_deref().filter(|text| !text.trim().is_empty()).map(Filter::parse).transpose()
}

/// The answer to a filter that is not understood.
pub fn bad_filter(reason: String) -> Reply {
    error(StatusCode::BAD_REQUEST, "The query parameter \"filter\" is not valid.", Some(&reason))
}

/// Items that pass the listing's filter, or why that is not understood.
pub fn filtered(items: Vec<Value>, listing: &ListQuery) -> Result<Vec<Value>, String> {
    let Some(filter) = filter(listing)? else { return Ok(items) };
    Ok(items.into_iter().filter(|item| filter.passes(&|path| Filter::member(item, path))).collect())
}

/// Whether `sortBy` asks for descending order of `member`; `default` when it says nothing about it.
pub fn descending(listing: &ListQuery, member: &str, default: bool) -> bool {
    match listing.sort_by.as_deref().and_then(|text| text.strip_prefix(member)) {
        Some(rest) => rest == ":descending",
        None => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_link_to_the_next_one_until_the_last() {
        let items: Vec<Value> = (0..25).map(|n| json!(n)).collect();
        let listing = |start| ListQuery { start: Some(start), ..ListQuery::default() };
        let rels = |page: &Value| {
            page["links"].as_array().unwrap().iter().map(|l| l["rel"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let first = page("/x", "items", "a", &listing(0), &items, Value::clone);
        assert_eq!(first["items"].as_array().unwrap().len(), 10);
        assert!(rels(&first).contains(&"next".into()));
        let last = page("/x", "items", "a", &listing(20), &items, Value::clone);
        assert_eq!((last["items"].as_array().unwrap().len(), last["count"].as_u64()), (5, Some(25)));
        assert!(!rels(&last).contains(&"next".into()));
    }
}
