//! Network interfaces, few of them one by one, many by listings of their resource groups.

use std::collections::HashMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::listing::{AT_ONCE, FEW, Lister};
use super::resources::{NETWORK, NETWORK_VERSION, NicResource, READ_NICS, read};
use crate::azure::{ArmRequest, ResourceId};
use crate::error::{ErrorKind, Result};

/// NICs by the keys of their ids.
pub(super) type Nics = HashMap<String, NicResource>;

/// These NICs, in whatever resource groups they are; those that do not exist are not among them.
pub(super) async fn nics(lister: &Lister<'_>, ids: &[ResourceId]) -> Result<Nics> {
    let mut groups: HashMap<(String, String), Vec<&ResourceId>> = HashMap::new();
    for id in ids {
        groups.entry((id.subscription.to_lowercase(), id.resource_group.to_lowercase())).or_default().push(id);
    }
    let mut found = Nics::new();
    let mut single = Vec::new();
    for members in groups.into_values() {
        let Some(first) = members.first().filter(|_| members.len() > FEW) else {
            single.extend(members);
            continue;
        };
        match in_scope(lister, &first.subscription, Some(&first.resource_group)).await {
            Ok(listed) => {
                // A NIC that was made while the pages were read is asked for by itself.
                single.extend(members.iter().filter(|id| !listed.contains_key(&id.key())));
                found.extend(listed);
            }
            Err(error) if error.kind() == ErrorKind::Authentication => single.extend(members),
            Err(error) => return Err(error),
        }
    }
    let one = |id: &ResourceId| {
        let id = id.clone();
        async move { one(lister, &id).await }
    };
    let asked: Vec<_> = stream::iter(single).map(one).buffer_unordered(AT_ONCE).try_collect().await?;
    found.extend(asked.into_iter().flatten());
    Ok(found)
}

/// All NICs of a resource group, or of a subscription.
pub(super) async fn in_scope(lister: &Lister<'_>, subscription: &str, group: Option<&str>) -> Result<Nics> {
    let path = ArmRequest::listing_path(subscription, group, NETWORK, "networkInterfaces");
    let call = ArmRequest::get(path, NETWORK_VERSION).needing(READ_NICS);
    let items = lister.arm.list(&call, lister.deadline).await?;
    let mut found = Nics::new();
    for item in items {
        let nic = nic(item)?;
        if let Some(id) = ResourceId::parse(&nic.id) {
            found.insert(id.key(), nic);
        }
    }
    Ok(found)
}

async fn one(lister: &Lister<'_>, id: &ResourceId) -> Result<Option<(String, NicResource)>> {
    let call = ArmRequest::get(id.path(), NETWORK_VERSION).needing(READ_NICS);
    match lister.arm.value(&call, lister.deadline).await {
        Ok(value) => Ok(Some((id.key(), nic(value)?))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn nic(value: serde_json::Value) -> Result<NicResource> {
    let mut nic: NicResource = read("a network interface", value)?;
    if nic.name.is_empty() {
        nic.name = ResourceId::parse(&nic.id).map(|id| id.name().to_owned()).unwrap_or_default();
    }
    Ok(nic)
}
