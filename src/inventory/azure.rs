//! The VMs of an Azure subscription, resource group or load balancer as an inventory: VM name, NIC name, private IP.
//!
//! Azure Resource Manager lists them, and the listing is cached. A job that starts every few minutes does not list again
//! (`max_age`), and it still has an inventory while Resource Manager does not answer (`max_stale`).

mod arm;
mod cache;
mod listing;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use self::arm::ResourceReader;
use self::cache::{CachedListing, ListingCache};
use self::listing::UsableVms;
use super::{Inventory, Origin, duration_text};
use crate::azure::{ArmClient, Cloud, Credential, CredentialVariables, Deadline, check_segment};
use crate::error::{Error, ErrorKind, Result};

/// The time limit where a cached inventory can be used instead.
const TIMEOUT_WITH_CACHE: Duration = Duration::from_secs(15);
/// VMs and reasons that the text of an error repeats.
const SHOWN: usize = 10;

/// Which VMs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Members {
    /// All of the resource group, or of the subscription.
    All,
    /// Those with these names, in this order.
    Names(Vec<String>),
    /// Those of a load balancer's backend pool: `load balancer/pool`, or the pool's resource id.
    BackendPool(String),
}

/// Which power states a VM may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum PowerFilter {
    /// Only VMs that are running.
    Running,
    /// All VMs; power states are not read.
    Any,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct AzureQuery {
    /// The subscription's id.
    pub subscription_id: String,
    /// The VMs' resource group; `None`: all of the subscription.
    pub resource_group: Option<String>,
    /// Which VMs.
    pub members: Members,
    /// In which power states.
    pub power: PowerFilter,
}

/// How to list it.
#[derive(Debug, Clone)]
pub struct AzureOptions {
    /// The credential.
    pub credential: Credential,
    /// `public`, `usgov`, `china`, or the address of a Resource Manager; `None`: public.
    pub endpoint: Option<String>,
    /// The login service; `None`: that of the cloud.
    pub authority_host: Option<String>,
    /// How long a cached listing is used without listing again.
    pub max_age: Duration,
    /// How old a cached listing may be that is used, with a warning, while Resource Manager does not answer.
    pub max_stale: Duration,
    /// Time limit of all requests together.
    pub timeout: Duration,
    /// The directory of cached listings; `None`: they are in this process only.
    pub state_dir: Option<PathBuf>,
    /// The environment variables.
    pub variables: CredentialVariables,
}

impl Default for AzureOptions {
    fn default() -> Self {
        Self {
            credential: Credential::Environment,
            endpoint: None,
            authority_host: None,
            max_age: Duration::from_secs(300),
            max_stale: Duration::from_secs(86_400),
            timeout: Duration::from_secs(60),
            state_dir: crate::settings::state_dir().map(|dir| dir.join("jobrota").join("azure")),
            variables: CredentialVariables::from_process(),
        }
    }
}

impl Inventory {
    /// The VMs of Azure that match `query`, with name, NIC name and private IP address. [`Inventory::origin`] has the source,
    /// the age, and the VMs that were left out with the reasons.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for names that Azure does not allow; [`ErrorKind::Authentication`] for credentials that are
    /// missing, refused or without the rights; [`ErrorKind::NotFound`], naming them, for VMs and pools that do not exist;
    /// [`ErrorKind::NoReachableVm`], retryable, when no VM is running, with the power state of each; [`ErrorKind::Network`]
    /// and [`ErrorKind::Server`], mostly retryable, when Resource Manager does not answer and there is no cached listing
    /// that may be used.
    pub async fn from_azure(query: &AzureQuery, options: &AzureOptions) -> Result<Self> {
        let query = checked(query)?;
        let cloud = Cloud::new(options.endpoint.as_deref(), options.authority_host.as_deref(), &options.variables)?;
        if options.timeout.is_zero() {
            return Err(Error::invalid("timeout must be more than 0 seconds"));
        }
        let cache = ListingCache::new(key(&query, &cloud, options), options.state_dir.clone());
        // An empty listing is not used: a VM may have been started since.
        let cached = cache.load().await.filter(|listing| !listing.vms.is_empty());
        if let Some(current) = cached.as_ref().filter(|listing| listing.age() < options.max_age) {
            return current.inventory(&query, None);
        }
        let spare = cached.filter(|listing| listing.age() <= options.max_stale);
        let limit = if spare.is_some() { options.timeout.min(TIMEOUT_WITH_CACHE) } else { options.timeout };
        let failure = match list(&query, &cloud, options, limit).await {
            Ok(listed) => {
                let listing = cache.listing(listed);
                // Also where all VMs are stopped, so that the cache has the newest listing.
                if options.max_age > Duration::ZERO || options.max_stale > Duration::ZERO {
                    cache.store(&listing).await;
                }
                return listing.inventory(&query, None);
            }
            Err(failure) => failure,
        };
        match spare.filter(|_| failure.is_retryable()) {
            Some(listing) => {
                let warning = format!(
                    "Azure Resource Manager did not list the VMs, and those listed {} ago are taken instead: {failure}",
                    duration_text(listing.age())
                );
                tracing::warn!(source = describe(&query), "{warning}");
                listing.inventory(&query, Some(warning))
            }
            None => Err(failure),
        }
    }
}

async fn list(query: &AzureQuery, cloud: &Cloud, options: &AzureOptions, limit: Duration) -> Result<UsableVms> {
    let arm = ArmClient::new(cloud, options.credential.clone(), options.variables.clone())?;
    listing::list(&ResourceReader { arm: &arm, query, deadline: Deadline::after(limit) }).await
}

impl CachedListing {
    /// The listing as an inventory.
    fn inventory(&self, query: &AzureQuery, warning: Option<String>) -> Result<Inventory> {
        let source = describe(query);
        if self.vms.is_empty() {
            return Err(no_usable_vm(&source, &self.left_out));
        }
        let origin = Origin {
            source,
            listed_at: self.listed_at,
            remembered: self.from_cache,
            left_out: self.left_out.clone(),
            warning,
        };
        Ok(Inventory { origin: Some(origin.into()), ..Inventory::new(self.vms.clone())? })
    }
}

fn no_usable_vm(source: &str, left_out: &[(String, String)]) -> Error {
    if left_out.is_empty() {
        let text = format!(
            "there is no VM in {source}: check that the names are right, and that the credential may see the VMs"
        );
        return Error::new(ErrorKind::NotFound, text);
    }
    let mut reasons: Vec<String> =
        left_out.iter().take(SHOWN).map(|(name, reason)| format!("{name} {reason}")).collect();
    if left_out.len() > SHOWN {
        reasons.push(format!("and {} more", left_out.len() - SHOWN));
    }
    let text = format!(
        "No reachable VM found. None of the VMs in {source} can be used: {}; start one, or give power_state=\"any\"",
        reasons.join(", ")
    );
    Error::new(ErrorKind::NoReachableVm, text).with_retryable(true).with_failures(left_out.to_vec())
}

/// The text that names the source.
fn describe(query: &AzureQuery) -> String {
    let mut text = format!("Azure subscription {}", query.subscription_id);
    if let Some(group) = &query.resource_group {
        text.push_str(&format!(", resource group {group}"));
    }
    match &query.members {
        Members::BackendPool(pool) => text.push_str(&format!(", backend pool {pool}")),
        Members::Names(names) => text.push_str(&format!(", {} VMs by name", names.len())),
        Members::All => {}
    }
    text
}

/// The key of a listing in the cache. Case does not matter, as in Azure.
fn key(query: &AzureQuery, cloud: &Cloud, options: &AzureOptions) -> String {
    let group = query.resource_group.as_deref().unwrap_or_default().to_lowercase();
    let members = match &query.members {
        Members::All => "all".to_owned(),
        Members::Names(names) => format!("names {}", names.join("/").to_lowercase()),
        Members::BackendPool(pool) => format!("pool {}", pool.to_lowercase()),
    };
    let whose = options.credential.identity(&options.variables);
    let subscription = query.subscription_id.to_lowercase();
    [cloud.arm().as_str(), &whose, &subscription, &group, &members, query.power.into()].join("\n")
}

fn checked(query: &AzureQuery) -> Result<AzureQuery> {
    let mut query = query.clone();
    let trim = |text: &mut String| *text = text.trim().to_owned();
    trim(&mut query.subscription_id);
    check_segment("subscription_id", &query.subscription_id)?;
    if let Some(group) = &mut query.resource_group {
        trim(group);
        check_segment("resource_group", group)?;
    }
    match &mut query.members {
        Members::All => {}
        Members::Names(names) => {
            if names.is_empty() {
                return Err(Error::invalid("vm_names is empty: name at least one VM, or leave it out to take all"));
            }
            let mut seen = HashSet::new();
            for name in names.iter_mut() {
                trim(name);
                check_segment("the VM name", name)?;
                if !seen.insert(name.to_lowercase()) {
                    return Err(Error::invalid(format!(
                        "vm_names has {name:?} twice: Azure's names do not differ by case alone"
                    )));
                }
            }
        }
        Members::BackendPool(pool) => {
            trim(pool);
            listing::pool_id(pool, &query.subscription_id, query.resource_group.as_deref())?;
        }
    }
    Ok(query)
}
