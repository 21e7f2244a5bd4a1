//! ARM resource ids. Azure ignores their case, and services spell the same id in several ways.

use std::fmt;

use url::Url;

use crate::error::{Error, Result};

/// The id of one resource in a resource group, such as
/// `/subscriptions/…/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/nic1/ipConfigurations/primary`.
#[derive(Debug, Clone)]
pub struct ResourceId {
    /// The subscription.
    pub subscription: String,
    /// The resource group, as this id spells it.
    pub resource_group: String,
    /// The provider's namespace, such as `Microsoft.Network`.
    pub provider: String,
    /// Types and names, outermost first; never empty.
    pub parts: Vec<(String, String)>,
}

impl ResourceId {
    /// The id of a resource.
    pub fn new(subscription: &str, resource_group: &str, provider: &str, kind: &str, name: &str) -> Self {
        Self {
            subscription: subscription.to_owned(),
            resource_group: resource_group.to_owned(),
            provider: provider.to_owned(),
            parts: vec![(kind.to_owned(), name.to_owned())],
        }
    }

    /// Parses the id of a resource in a resource group; `None` for any other text.
    pub fn parse(id: &str) -> Option<Self> {
        let segments: Vec<&str> = id.trim().trim_matches('/').split('/').collect();
        let is = |index: usize, word: &str| segments.get(index).is_some_and(|part| part.eq_ignore_ascii_case(word));
        let well_formed = is(0, "subscriptions") && is(2, "resourceGroups") && is(4, "providers");
        let rest = segments.get(6..).unwrap_or_default();
        if !well_formed || rest.is_empty() || rest.len() % 2 != 0 || segments.iter().any(|part| part.is_empty()) {
            return None;
        }
        Some(Self {
            subscription: segments[1].to_owned(),
            resource_group: segments[3].to_owned(),
            provider: segments[5].to_owned(),
            parts: rest.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect(),
        })
    }

    /// Name of the innermost resource.
    pub fn name(&self) -> &str {
        self.parts.last().map_or("", |(_, name)| name)
    }

    /// Whether this is the id of a resource of type `provider/kind`, or of a resource within one.
    pub fn is(&self, provider: &str, kind: &str) -> bool {
        self.provider.eq_ignore_ascii_case(provider)
            && self.parts.first().is_some_and(|(own, _)| own.eq_ignore_ascii_case(kind))
    }

    /// The name of the part of type `kind`, if it has one.
    pub fn part(&self, kind: &str) -> Option<&str> {
        self.parts.iter().find(|(own, _)| own.eq_ignore_ascii_case(kind)).map(|(_, name)| name.as_str())
    }

    /// The id of the outermost resource.
    pub fn outermost(&self) -> Self {
        Self { parts: self.parts.iter().take(1).cloned().collect(), ..self.clone() }
    }

    /// A text that is equal for ids of the same resource.
    pub fn key(&self) -> String {
        self.to_string().to_lowercase()
    }

    /// The path for a request, each part escaped.
    pub fn path(&self) -> String {
        escaped(&self.segments())
    }

    fn segments(&self) -> Vec<&str> {
        let (subscription, group, provider) = (&*self.subscription, &*self.resource_group, &*self.provider);
        let mut segments = vec!["subscriptions", subscription, "resourceGroups", group, "providers", provider];
        segments.extend(self.parts.iter().flat_map(|(kind, name)| [kind.as_str(), name]));
        segments
    }
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ResourceId {}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments().iter().try_for_each(|segment| write!(f, "/{segment}"))
    }
}

/// `segments` as a path, each escaped.
pub(super) fn escaped(segments: &[&str]) -> String {
    let Ok(mut url) = Url::parse("https://host/") else { return String::new() };
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().extend(segments);
    }
    url.path().to_owned()
}

/// Checks a name that becomes part of a path: letters, digits and `-_.()`, at most 90 characters, as Azure allows for
/// resource groups. The rules for VMs and load balancers are stricter.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] that names `what` is wrong.
pub fn check_segment(what: &str, text: &str) -> Result<()> {
    let fits = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
    if text.is_empty() || text.chars().count() > 90 || !text.chars().all(fits) || text.chars().all(|c| c == '.') {
        return Err(Error::invalid(format!(
            "{what} {text:?} is not a name that Azure allows: give letters, digits and -_.(), at most 90 of them"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: &str = "/subscriptions/S1/resourceGroups/Net-RG/providers/Microsoft.Network/networkInterfaces/nic1";

    #[test]
    fn ids_are_compared_without_regard_to_case() {
        let nic = ResourceId::parse(NIC).unwrap();
        let other = ResourceId::parse(&NIC.to_uppercase()).unwrap();
        assert_eq!(nic, other);
        assert_eq!((nic.name(), nic.resource_group.as_str(), nic.subscription.as_str()), ("nic1", "Net-RG", "S1"));
        assert!(other.is("microsoft.network", "networkinterfaces"));
        assert_eq!(nic.to_string(), NIC);
        assert_eq!(nic.path(), NIC);
    }

    #[test]
    fn parts_of_nested_ids() {
        let id = ResourceId::parse(&format!("{NIC}/ipConfigurations/primary")).unwrap();
        assert_eq!((id.name(), id.part("ipconfigurations")), ("primary", Some("primary")));
        assert_eq!(id.outermost(), ResourceId::parse(NIC).unwrap());
    }

    #[test]
    fn what_is_no_id_of_a_resource_is_none() {
        for text in
            ["", "/", "nic1", "/subscriptions/s", "/subscriptions/s/resourceGroups/g", &NIC[1..30], &format!("{NIC}/x")]
        {
            assert!(ResourceId::parse(text).is_none(), "{text}");
        }
        assert!(ResourceId::parse(NIC.trim_start_matches('/')).is_some());
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        for wrong in ["", "a/b", "..", ".", "a b", "a?b", "a%2fb", &"x".repeat(91)] {
            assert!(check_segment("vm", wrong).is_err(), "{wrong}");
        }
        for right in ["rg-1", "Net_RG.(x)", "größe"] {
            check_segment("resource_group", right).unwrap();
        }
        assert_eq!(escaped(&["a/b", "c?d"]), "/a%2Fb/c%3Fd");
    }
}
