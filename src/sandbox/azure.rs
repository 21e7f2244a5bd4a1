//! A local Azure over real HTTP: the login service, a VM's metadata service, and Resource Manager with VMs, network
//! interfaces and load balancers.
//!
//! Paths, parameters and error bodies are those of Microsoft's REST reference. It requires `api-version`, checks tokens, returns
//! short pages, and spells the same id in several ways, as Azure does.

mod arm;
mod model;
mod run_command;
#[cfg(test)]
mod tests;
mod tokens;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

pub use model::{AzureNic, AzurePool, AzureVm, PoolMembers};
pub use run_command::{RunCommandMode, SimulatedRunCommand};
pub use tokens::{CLIENT_ID, IDENTITY_CLIENT_ID, TENANT_ID};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::local_server::LocalServer;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::lock;
use arm::AzureState;

/// Its only subscription, if [`AzureOptions::subscription_id`] names no other.
pub const SUBSCRIPTION_ID: &str = "5a4db0c5-0000-4000-8000-000000000001";
/// The resource group of its VMs.
pub const RESOURCE_GROUP: &str = "sandbox-vms";
/// The resource group of some of their network interfaces.
pub const NETWORK_GROUP: &str = "sandbox-network";
/// Its load balancer, with the pools `by-nic` and `by-address`.
pub const LOAD_BALANCER: &str = "sandbox-lb";
/// A VM that is deallocated and keeps its address.
pub const DEALLOCATED_VM: &str = "vm-deallocated";
/// Source: Microsoft's list of the power states of VMs.
const POWER_STATES: [&str; 7] =
    ["starting", "running", "stopping", "stopped", "deallocating", "deallocated", "unknown"];

/// An error answer of Resource Manager.
fn refused(status: StatusCode, code: &str, text: &str) -> Response {
    (status, Json(json!({"error": {"code": code, "message": text}}))).into_response()
}

/// The answer for a resource that does not exist.
fn no_resource(path: &str) -> Response {
    refused(StatusCode::NOT_FOUND, "ResourceNotFound", &format!("The Resource '{path}' was not found."))
}

/// What the simulated Azure is like.
#[derive(Debug, Clone)]
pub struct AzureOptions {
    /// Its only subscription, in lower case.
    pub subscription_id: String,
    /// Items per page of a listing.
    pub page_size: usize,
    /// How many requests Resource Manager answers with 429 before it processes one.
    pub throttle_first: u32,
    /// Seconds in `Retry-After` of these answers.
    pub retry_after: u32,
    /// How long a token is valid.
    pub token_lifetime: Duration,
    /// Forbidden paths: a path that contains one of these lower-case texts is answered with 403.
    pub forbidden: Vec<String>,
    /// Host and port in `nextLink`; `None`: its own.
    pub next_link_host: Option<String>,
    /// How Run Command behaves.
    pub run_command: SimulatedRunCommand,
    /// Its VMs.
    pub vms: Vec<AzureVm>,
    /// The backend pools of its load balancer.
    pub pools: Vec<AzurePool>,
}

impl Default for AzureOptions {
    fn default() -> Self {
        Self {
            subscription_id: SUBSCRIPTION_ID.to_owned(),
            page_size: 2,
            throttle_first: 0,
            retry_after: 1,
            token_lifetime: Duration::from_secs(3600),
            forbidden: Vec::new(),
            next_link_host: None,
            run_command: SimulatedRunCommand::default(),
            vms: Vec::new(),
            pools: Vec::new(),
        }
    }
}

impl AzureOptions {
    /// With VMs of these names and addresses, and one more that is deallocated: the first has two network interfaces,
    /// every second one has its interface in another resource group, and a second address that is not the primary one.
    pub fn with_vms(mut self, vms: &[(String, IpAddr)]) -> Self {
        for (index, (name, address)) in vms.iter().enumerate() {
            let mut vm = AzureVm::new(name, *address);
            if index == 0 {
                let data = AzureNic {
                    primary: false,
                    ..AzureNic::new(&format!("{name}-nic-data"), "10.255.0.4".parse().ok())
                };
                vm.nics.insert(0, data);
            }
            if index % 2 == 1 {
                for nic in &mut vm.nics {
                    nic.resource_group = NETWORK_GROUP.to_owned();
                    nic.configurations.insert(0, ("secondary".to_owned(), "10.255.0.5".parse().ok(), false));
                }
            }
            self.vms.push(vm);
        }
        // The address after the last one.
        let next = u8::try_from(vms.len()).unwrap_or(u8::MAX - 11).saturating_add(11);
        let kept = IpAddr::V4(Ipv4Addr::new(127, 0, 0, next));
        self.vms.push(AzureVm { power: "deallocated".to_owned(), ..AzureVm::new(DEALLOCATED_VM, kept) });
        let names = self.vms.iter().map(|vm| vm.name.clone()).collect();
        let addresses = vms.iter().map(|(_, address)| *address).collect();
        self.pools.push(AzurePool { name: "by-nic".to_owned(), members: PoolMembers::Nics(names) });
        self.pools.push(AzurePool { name: "by-address".to_owned(), members: PoolMembers::Addresses(addresses) });
        self
    }
}

/// A simulated Azure on a port of 127.0.0.1. It stops when it is dropped.
#[derive(Debug)]
pub struct AzureSandbox {
    server: Arc<AzureState>,
    http: LocalServer,
}

impl AzureSandbox {
    /// Starts it on the process's runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Network`], retryable, when the system gives no port.
    pub fn start(options: AzureOptions) -> Result<Self> {
        let server = Arc::new(AzureState::new(options));
        let http = LocalServer::start("Azure", arm::router(Arc::clone(&server)))?;
        let azure = Self { server, http };
        azure.set_public_url(&azure.http.url());
        Ok(azure)
    }

    /// The address of its Resource Manager, its login service and its metadata service: its own, or the one that
    /// [`AzureSandbox::set_public_url`] gave.
    pub fn url(&self) -> String {
        self.server.public_url()
    }

    /// Its only subscription.
    pub fn subscription_id(&self) -> &str {
        &self.server.options.subscription_id
    }

    /// The secret of its service principal, generated for this sandbox.
    pub fn client_secret(&self) -> String {
        lock(&self.server.tokens).secret.clone()
    }

    /// A token for its Resource Manager, as its login service issues it.
    pub fn issue_token(&self) -> String {
        lock(&self.server.tokens).issue().0
    }

    /// Puts a VM into a power state, such as `running` or `deallocated`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such VM; [`ErrorKind::InvalidInput`] for a state that Azure does not have.
    pub fn set_power(&self, vm: &str, state: &str) -> Result<()> {
        if !POWER_STATES.contains(&state) {
            return Err(Error::invalid(format!(
                "{state:?} is no power state: give one of {}",
                POWER_STATES.join(", ")
            )));
        }
        let mut vms = lock(&self.server.vms);
        let absent = || Error::new(ErrorKind::NotFound, format!("the sandbox's Azure has no VM {vm:?}"));
        vms.iter_mut().find(|known| known.name == vm).ok_or_else(absent)?.power = state.to_owned();
        Ok(())
    }

    /// What Run Command does on a VM from now on.
    pub fn set_run_command(&self, vm: &str, mode: RunCommandMode) {
        lock(&self.server.commands.state).modes.insert(vm.to_lowercase(), mode);
    }

    /// How many bytes of the output of Run Command are kept from now on: the last ones.
    pub fn set_output_limit(&self, bytes: usize) {
        lock(&self.server.commands.state).output_limit = bytes;
    }

    /// The scripts that Run Command ran: VM and script, in order.
    pub fn scripts(&self) -> Vec<(String, String)> {
        lock(&self.server.commands.state).scripts.clone()
    }

    /// The address under which clients reach it, where something is in between, such as what adds TLS. Its links lead there.
    pub fn set_public_url(&self, url: &str) {
        *lock(&self.server.public_url) = url.trim_end_matches('/').to_owned();
    }

    /// Method and path of every request to Resource Manager, in order.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.server.requests).clone()
    }
}

impl Drop for AzureSandbox {
    fn drop(&mut self) {
        self.server.commands.stop();
    }
}
