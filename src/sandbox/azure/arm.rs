//! The HTTP server: the login and metadata services, and Resource Manager's routes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::model::{AzureNic, AzureVm};
use super::run_command::RunCommands;
use super::tokens::{IdentityRequest, IssuedTokens, LoginForm};
use super::{AzureOptions, LOAD_BALANCER, RESOURCE_GROUP, lock, no_resource, refused};

type Parameters = HashMap<String, String>;

/// The state that all requests share.
#[derive(Debug)]
pub struct AzureState {
    pub tokens: Mutex<IssuedTokens>,
    pub options: AzureOptions,
    pub vms: Mutex<Vec<AzureVm>>,
    pub requests: Mutex<Vec<String>>,
    throttled: AtomicU32,
    pub down: Mutex<bool>,
    /// The address under which clients reach it; links begin with it.
    pub public_url: Mutex<String>,
    pub commands: RunCommands,
}

impl AzureState {
    pub fn new(options: AzureOptions) -> Self {
        Self {
            tokens: Mutex::new(IssuedTokens::new(options.token_lifetime)),
            vms: Mutex::new(options.vms.clone()),
            commands: RunCommands::new(options.run_command.clone()),
            public_url: Mutex::default(),
            options,
            requests: Mutex::default(),
            throttled: AtomicU32::new(0),
            down: Mutex::default(),
        }
    }

    pub fn public_url(&self) -> String {
        lock(&self.public_url).clone()
    }

    /// The answer to a request that is refused before it is read.
    fn refusal(&self, headers: &HeaderMap, path: &str, query: &Parameters) -> Option<Response> {
        if *lock(&self.down) {
            return Some(refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "The sandbox was asked to be down.",
            ));
        }
        if let Some((code, text)) = lock(&self.tokens).refusal(headers) {
            let mut reply = refused(StatusCode::UNAUTHORIZED, code, text);
            let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{text}\"");
            if let Ok(challenge) = challenge.parse() {
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            return Some(reply);
        }
        if self.throttled.fetch_add(1, Ordering::Relaxed) < self.options.throttle_first {
            let text = "The number of requests has exceeded the limit of the sandbox.";
            let mut reply = refused(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", text);
            reply.headers_mut().insert(header::RETRY_AFTER, self.options.retry_after.into());
            return Some(reply);
        }
        if query.get("api-version").is_none_or(String::is_empty) {
            let text = "The api-version query parameter (?api-version=) is required for all requests.";
            return Some(refused(StatusCode::BAD_REQUEST, "MissingApiVersionParameter", text));
        }
        let path = path.to_lowercase();
        self.options.forbidden.iter().any(|part| path.contains(part.as_str())).then(|| {
            let text = format!("The client does not have authorization to perform action over scope '{path}'.");
            refused(StatusCode::FORBIDDEN, "AuthorizationFailed", &text)
        })
    }

    /// Answers a GET to Resource Manager.
    fn answer(&self, path: &str, query: &Parameters) -> Response {
        let lower = path.to_lowercase();
        let segments: Vec<&str> = lower.trim_matches('/').split('/').collect();
        let ["subscriptions", named, rest @ ..] = segments.as_slice() else { return no_route(path) };
        let subscription = &self.options.subscription_id;
        if named != subscription {
            let text = format!("The subscription '{named}' could not be found.");
            return refused(StatusCode::NOT_FOUND, "SubscriptionNotFound", &text);
        }
        let (group, rest) = match rest {
            ["resourcegroups", group, rest @ ..] => (Some(*group), rest),
            rest => (None, rest),
        };
        let vms = lock(&self.vms).clone();
        if let Some(group) = group.filter(|group| !self.has_group(&vms, group)) {
            let text = format!("Resource group '{group}' could not be found.");
            return refused(StatusCode::NOT_FOUND, "ResourceGroupNotFound", &text);
        }
        let in_group = |own: &str| group.is_none_or(|group| own.eq_ignore_ascii_case(group));
        let view = query.get("$expand").is_some_and(|what| what.eq_ignore_ascii_case("instanceView"));
        let nics =
            || vms.iter().flat_map(|vm| vm.nics.iter().map(move |nic| (vm, nic))).filter(|(_, nic)| !nic.missing);
        let vm = |name: &str| vms.iter().find(|vm| vm.name.eq_ignore_ascii_case(name) && in_group(&vm.resource_group));
        let found = match rest {
            ["providers", "microsoft.compute", "virtualmachines"] => {
                let status_only = query.get("statusOnly").is_some_and(|value| value.eq_ignore_ascii_case("true"));
                if status_only && group.is_some() {
                    return refused(StatusCode::BAD_REQUEST, "BadRequest", "statusOnly is for whole subscriptions.");
                }
                // The newest first: clients must not depend on an order.
                let all = vms.iter().rev().filter(|vm| in_group(&vm.resource_group));
                let items = all
                    .map(|vm| if status_only { vm.status(subscription) } else { vm.describe(subscription, false) })
                    .collect();
                return self.page(path, query, items);
            }
            ["providers", "microsoft.compute", "virtualmachines", name] => {
                vm(name).map(|vm| vm.describe(subscription, view))
            }
            ["providers", "microsoft.compute", "virtualmachines", name, "instanceview"] => {
                vm(name).map(AzureVm::instance_view)
            }
            ["providers", "microsoft.network", "networkinterfaces"] => {
                let all = nics().filter(|(_, nic)| in_group(&nic.resource_group));
                return self.page(path, query, all.map(|(vm, nic)| nic.describe(subscription, vm)).collect());
            }
            ["providers", "microsoft.network", "networkinterfaces", name] => {
                let is = |(_, nic): &(&AzureVm, &AzureNic)| {
                    nic.name.eq_ignore_ascii_case(name) && in_group(&nic.resource_group)
                };
                nics().find(is).map(|(vm, nic)| nic.describe(subscription, vm))
            }
            ["providers", "microsoft.network", "loadbalancers", balancer, "backendaddresspools", name] => {
                let here = balancer.eq_ignore_ascii_case(LOAD_BALANCER) && in_group(RESOURCE_GROUP);
                let pool = self.options.pools.iter().find(|pool| here && pool.name.eq_ignore_ascii_case(name));
                pool.map(|pool| pool.describe(subscription, &vms))
            }
            ["providers", "microsoft.compute", "locations", _, "operations", id] => {
                return self.commands.answer(id, query.contains_key("monitor"));
            }
            _ => return no_route(path),
        };
        found.map_or_else(|| no_resource(path), |found| Json(found).into_response())
    }

    /// Answers a POST to Resource Manager.
    fn post(&self, path: &str, body: &[u8]) -> Response {
        let lower = path.to_lowercase();
        let segments: Vec<&str> = lower.trim_matches('/').split('/').collect();
        let ["subscriptions", subscription, "resourcegroups", group, rest @ ..] = segments.as_slice() else {
            return no_route(path);
        };
        let ["providers", "microsoft.compute", "virtualmachines", name, "runcommand"] = rest else {
            return no_route(path);
        };
        let vms = lock(&self.vms).clone();
        let is = |vm: &&AzureVm| vm.name.eq_ignore_ascii_case(name) && vm.resource_group.eq_ignore_ascii_case(group);
        match vms.iter().find(is) {
            Some(vm) if *subscription == self.options.subscription_id => {
                self.commands.run(vm, body, &format!("{}/subscriptions/{subscription}", self.public_url()))
            }
            _ => no_resource(path),
        }
    }

    fn has_group(&self, vms: &[AzureVm], group: &str) -> bool {
        let of_nics = |vm: &AzureVm| vm.nics.iter().any(|nic| nic.resource_group.eq_ignore_ascii_case(group));
        group.eq_ignore_ascii_case(RESOURCE_GROUP)
            || vms.iter().any(|vm| vm.resource_group.eq_ignore_ascii_case(group) || of_nics(vm))
    }

    fn page(&self, path: &str, query: &Parameters, items: Vec<Value>) -> Response {
        let size = self.options.page_size.max(1);
        let start = query.get("$skiptoken").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        let more = start + size < items.len();
        let mut page = json!({"value": items.into_iter().skip(start).take(size).collect::<Vec<_>>()});
        if more {
            let mut parameters = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in query.iter().filter(|(name, _)| *name != "$skiptoken") {
                parameters.append_pair(name, value);
            }
            parameters.append_pair("$skiptoken", &(start + size).to_string());
            let host = self.options.next_link_host.as_ref().map(|host| format!("http://{host}"));
            let host = host.unwrap_or_else(|| self.public_url());
            page["nextLink"] = json!(format!("{host}{path}?{}", parameters.finish()));
        }
        Json(page).into_response()
    }
}

/// All routes.
pub fn router(server: Arc<AzureState>) -> Router {
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(login))
        .route("/metadata/identity/oauth2/token", get(identity))
        .fallback(resource_manager)
        .with_state(server)
}

async fn login(
    State(server): State<Arc<AzureState>>,
    Path(tenant): Path<String>,
    Form(request): Form<LoginForm>,
) -> (StatusCode, Json<Value>) {
    lock(&server.tokens).login(&tenant, &request)
}

async fn identity(
    State(server): State<Arc<AzureState>>,
    headers: HeaderMap,
    Query(request): Query<IdentityRequest>,
) -> (StatusCode, Json<Value>) {
    lock(&server.tokens).identity(&headers, &request)
}

async fn resource_manager(
    State(server): State<Arc<AzureState>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Query<Parameters>,
    body: Bytes,
) -> Response {
    lock(&server.requests).push(format!("{method} {}", uri.path()));
    if let Some(refusal) = server.refusal(&headers, uri.path(), &query) {
        return refusal;
    }
    match method {
        Method::GET => server.answer(uri.path(), &query),
        Method::POST => server.post(uri.path(), &body),
        _ => no_route(uri.path()),
    }
}

fn no_route(path: &str) -> Response {
    refused(StatusCode::NOT_FOUND, "InvalidResourceType", &format!("The sandbox's Azure has nothing at '{path}'."))
}
