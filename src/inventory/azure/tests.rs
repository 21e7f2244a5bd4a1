//! Against the sandbox's Azure, over real HTTP.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use chrono::Utc;

use super::*;
use crate::azure::{AccessToken, TokenSource};
use crate::sandbox::azure::{
    AzureNic, AzureOptions as Like, AzurePool, AzureSandbox, AzureVm, CLIENT_ID, DEALLOCATED_VM, IDENTITY_CLIENT_ID,
    LOAD_BALANCER, NETWORK_GROUP, PoolMembers, RESOURCE_GROUP, SUBSCRIPTION_ID, TENANT_ID,
};

fn vms(count: u8) -> Vec<(String, IpAddr)> {
    (1..=count).map(|n| (format!("vm{n}"), IpAddr::from([127, 0, 0, 10 + n]))).collect()
}

fn azure(count: u8) -> AzureSandbox {
    start(Like::default(), count)
}

fn start(like: Like, count: u8) -> AzureSandbox {
    AzureSandbox::start(like.with_vms(&vms(count))).unwrap()
}

fn all() -> AzureQuery {
    AzureQuery {
        subscription_id: SUBSCRIPTION_ID.to_owned(),
        resource_group: Some(RESOURCE_GROUP.to_owned()),
        members: Members::All,
        power: PowerFilter::Running,
    }
}

fn named(names: &[&str]) -> AzureQuery {
    AzureQuery { members: Members::Names(names.iter().map(|name| (*name).to_owned()).collect()), ..all() }
}

fn pool(name: &str) -> AzureQuery {
    AzureQuery { members: Members::BackendPool(name.to_owned()), ..all() }
}

/// As a user of the sandbox's service principal, who remembers nothing.
fn options(azure: &AzureSandbox) -> AzureOptions {
    AzureOptions {
        credential: Credential::service_principal(TENANT_ID, CLIENT_ID, azure.client_secret()),
        endpoint: Some(azure.url()),
        authority_host: Some(azure.url()),
        max_age: Duration::ZERO,
        max_stale: Duration::ZERO,
        timeout: Duration::from_secs(30),
        state_dir: None,
        variables: CredentialVariables::default(),
    }
}

fn list(query: &AzureQuery, options: &AzureOptions) -> Result<Inventory> {
    crate::runtime::block_on(Inventory::from_azure(query, options))
}

fn triples(inventory: &Inventory) -> Vec<(&str, &str, &str)> {
    let nic = |vm: &'_ crate::inventory::Vm| vm.nic_name.clone().unwrap_or_default();
    inventory.vms().iter().map(|vm| (vm.name.as_str(), vm.ip_address.as_str(), String::leak(nic(vm)) as &str)).collect()
}

#[test]
fn a_resource_group_is_listed_with_primary_nics_and_without_what_is_stopped() {
    let azure = azure(3);
    let inventory = list(&all(), &options(&azure)).unwrap();
    let expected =
        [("vm1", "127.0.0.11", "vm1-nic"), ("vm2", "127.0.0.12", "vm2-nic"), ("vm3", "127.0.0.13", "vm3-nic")];
    assert_eq!(triples(&inventory), expected);
    let origin = inventory.origin().unwrap();
    assert_eq!(origin.left_out, [(DEALLOCATED_VM.to_owned(), "is deallocated".to_owned())]);
    assert!(!origin.remembered && origin.age() < Duration::from_secs(20) && origin.warning.is_none());
    assert!(origin.source.contains(RESOURCE_GROUP));
}

#[test]
fn any_power_state_asks_for_none() {
    let azure = azure(3);
    let inventory = list(&AzureQuery { power: PowerFilter::Any, ..all() }, &options(&azure)).unwrap();
    assert_eq!(inventory.len(), 4);
    assert_eq!(inventory.get(DEALLOCATED_VM).unwrap().ip_address, "127.0.0.14");
    let of_vms = azure.requests().iter().filter(|line| line.contains("virtualMachines/")).count();
    assert_eq!(of_vms, 0, "{:?}", azure.requests());
}

#[test]
fn names_are_taken_in_their_order_and_without_regard_to_case() {
    let azure = azure(3);
    let inventory = list(&named(&["VM3", " vm1 "]), &options(&azure)).unwrap();
    assert_eq!(triples(&inventory), [("vm3", "127.0.0.13", "vm3-nic"), ("vm1", "127.0.0.11", "vm1-nic")]);
    assert_eq!(azure.requests().len(), 4, "a VM with its state and a NIC, each: {:?}", azure.requests());
    let of_subscription = AzureQuery { resource_group: None, ..named(&["vm2"]) };
    assert_eq!(triples(&list(&of_subscription, &options(&azure)).unwrap()), [("vm2", "127.0.0.12", "vm2-nic")]);
}

#[test]
fn names_that_are_not_there_are_named() {
    let azure = azure(2);
    for query in [named(&["vm1", "vm8", "vm9"]), AzureQuery { resource_group: None, ..named(&["vm8", "vm9", "vm1"]) }] {
        let error = list(&query, &options(&azure)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no VM vm8, vm9 in"), "{error}");
    }
    let error =
        list(&AzureQuery { resource_group: Some("nowhere".into()), ..named(&["vm1"]) }, &options(&azure)).unwrap_err();
    assert!(error.to_string().contains("ResourceGroupNotFound"), "{error}");
    let error = list(&AzureQuery { subscription_id: "other".into(), ..all() }, &options(&azure)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("SubscriptionNotFound"), "{error}");
}

#[test]
fn when_nothing_runs_the_error_has_each_state() {
    let azure = azure(2);
    azure.set_power("vm1", "stopped").unwrap();
    azure.set_power("vm2", "stopping").unwrap();
    let error = list(&all(), &options(&azure)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoReachableVm);
    assert!(error.is_retryable());
    assert!(error.to_string().starts_with("No reachable VM found."), "{error}");
    let reasons: Vec<_> = error.failures().iter().map(|(vm, why)| format!("{vm} {why}")).collect();
    assert_eq!(reasons, ["vm-deallocated is deallocated", "vm1 is stopped", "vm2 is stopping"]);
}

#[test]
fn what_has_no_address_is_left_out_with_the_reason() {
    let mut no_nic = AzureVm::new("a-none", IpAddr::from([10, 0, 0, 1]));
    no_nic.nics.clear();
    let mut no_address = AzureVm::new("b-empty", IpAddr::from([10, 0, 0, 1]));
    no_address.nics = vec![AzureNic::new("b-nic", None)];
    let mut gone = AzureVm::new("c-gone", IpAddr::from([10, 0, 0, 1]));
    gone.nics[0].missing = true;
    let mut both = AzureVm::new("d-both", IpAddr::from([10, 0, 0, 1]));
    both.nics[0].configurations =
        vec![("six".to_owned(), "fd00::4".parse().ok(), true), ("second".to_owned(), "10.0.0.9".parse().ok(), false)];
    let six = AzureVm::new("e-six", "fd00::5".parse().unwrap());
    let state = AzureVm { power: String::new(), ..AzureVm::new("f-new", IpAddr::from([10, 0, 0, 7])) };
    let like = Like { vms: vec![no_nic, no_address, gone, both, six, state], ..Like::default() };
    let azure = AzureSandbox::start(like).unwrap();
    let inventory = list(&all(), &options(&azure)).unwrap();
    assert_eq!(triples(&inventory), [("d-both", "10.0.0.9", "d-both-nic"), ("e-six", "fd00::5", "e-six-nic")]);
    let left_out = inventory.origin().unwrap().left_out.clone();
    let of = |name: &str| left_out.iter().find(|(vm, _)| vm == name).map(|(_, why)| why.as_str()).unwrap();
    assert_eq!(of("a-none"), "has no network interface");
    assert!(of("b-empty").contains("no private IP address"));
    assert!(of("c-gone").contains("c-gone-nic, that does not exist"));
    assert_eq!(of("f-new"), "has no power state");
}

#[test]
fn many_vms_cost_few_requests() {
    let mut like = Like { page_size: 50, ..Like::default() };
    for n in 0..200_u8 {
        let mut vm = AzureVm::new(&format!("vm{n:03}"), IpAddr::from([10, 0, 1, n]));
        if n % 2 == 0 {
            vm.nics[0].resource_group = NETWORK_GROUP.to_owned();
        }
        like.vms.push(vm);
    }
    let azure = AzureSandbox::start(like).unwrap();
    for query in [all(), AzureQuery { resource_group: None, ..all() }] {
        let before = azure.requests().len();
        let inventory = list(&query, &options(&azure)).unwrap();
        assert_eq!((inventory.len(), inventory.vms()[7].ip_address.as_str()), (200, "10.0.1.7"));
        let asked = azure.requests().len() - before;
        assert_eq!(asked, 4 + 4 + 2 + 2, "4 pages of VMs, 4 of states, 2 of NICs in each of two groups");
    }
}

#[test]
fn without_rights_in_the_subscription_states_and_nics_are_asked_for_one_by_one() {
    let forbidden = vec![
        format!("/subscriptions/{SUBSCRIPTION_ID}/providers/"),
        format!("{NETWORK_GROUP}/providers/microsoft.network/networkinterfaces/none"),
    ];
    let azure = start(Like { forbidden, page_size: 100, ..Like::default() }, 20);
    assert_eq!(list(&all(), &options(&azure)).unwrap().len(), 20);
    let whole = list(&AzureQuery { resource_group: None, ..all() }, &options(&azure)).unwrap_err();
    assert_eq!(whole.kind(), ErrorKind::Authentication);
    assert!(whole.to_string().contains("Microsoft.Compute/virtualMachines/read"), "{whole}");
}

#[test]
fn a_forbidden_nic_names_the_permission() {
    let forbidden = vec![format!("{NETWORK_GROUP}/providers/microsoft.network")];
    let azure = start(Like { forbidden, ..Like::default() }, 3);
    let error = list(&all(), &options(&azure)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    let text = error.to_string();
    assert!(text.contains("Microsoft.Network/networkInterfaces/read") && text.contains("vm2-nic"), "{text}");
}

#[test]
fn backend_pools_by_nic_and_by_address() {
    let azure = azure(3);
    let expected =
        [("vm1", "127.0.0.11", "vm1-nic"), ("vm2", "127.0.0.12", "vm2-nic"), ("vm3", "127.0.0.13", "vm3-nic")];
    let by_nic = list(&pool(&format!("{LOAD_BALANCER}/by-nic")), &options(&azure)).unwrap();
    assert_eq!(triples(&by_nic), expected);
    assert_eq!(by_nic.origin().unwrap().left_out, [(DEALLOCATED_VM.to_owned(), "is deallocated".to_owned())]);
    let id = format!(
        "/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.Network/loadBalancers/{LOAD_BALANCER}\
         /backendAddressPools/by-address"
    );
    let by_address = list(&AzureQuery { resource_group: None, ..pool(&id) }, &options(&azure)).unwrap();
    assert_eq!(triples(&by_address), expected);
    let error = list(&pool(&format!("{LOAD_BALANCER}/other")), &options(&azure)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn pools_have_members_that_are_no_vms() {
    let mut like = Like::default().with_vms(&vms(2));
    let scale_set = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/virtualMachineScaleSets/web/virtualMachines/3\
                     /networkInterfaces/nic/ipConfigurations/c";
    let nic = |name: &str| {
        format!(
            "/subscriptions/{SUBSCRIPTION_ID}/resourceGroups/{RESOURCE_GROUP}/providers/Microsoft.Network/networkInterfaces/{name}\
             /ipConfigurations/primary"
        )
    };
    let ids = vec![scale_set.to_owned(), nic("vm1-nic").to_uppercase(), nic("lost-nic")];
    like.pools.push(AzurePool { name: "mixed".into(), members: PoolMembers::Ids(ids) });
    let addresses = vec![IpAddr::from([10, 9, 9, 9]), IpAddr::from([127, 0, 0, 12])];
    like.pools.push(AzurePool { name: "outside".into(), members: PoolMembers::Addresses(addresses) });
    let azure = AzureSandbox::start(like).unwrap();
    let mixed = list(&pool(&format!("{LOAD_BALANCER}/mixed")), &options(&azure)).unwrap();
    assert_eq!(triples(&mixed), [("vm1", "127.0.0.11", "vm1-nic")]);
    let left_out = &mixed.origin().unwrap().left_out;
    assert!(left_out.iter().any(|(name, why)| name == "web/3" && why.contains("uniform scale set")), "{left_out:?}");
    assert!(left_out.iter().any(|(name, _)| name.eq_ignore_ascii_case("lost-nic")), "{left_out:?}");
    let outside = list(&pool(&format!("{LOAD_BALANCER}/outside")), &options(&azure)).unwrap();
    assert_eq!(triples(&outside), [("10.9.9.9", "10.9.9.9", ""), ("vm2", "127.0.0.12", "vm2-nic")]);
}

#[test]
fn what_cannot_be_azures_is_refused_before_anything_is_asked() {
    let azure = azure(1);
    let wrong = [
        AzureQuery { subscription_id: "a/b".into(), ..all() },
        AzureQuery { resource_group: Some("..".into()), ..all() },
        named(&[]),
        named(&["vm1", "VM1"]),
        named(&["vm 1"]),
        pool("by-nic"),
        pool("/subscriptions/x"),
        AzureQuery { resource_group: None, ..pool("lb/pool") },
    ];
    for query in wrong {
        let error = list(&query, &options(&azure)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{query:?}: {error}");
    }
    assert_eq!(azure.requests().len() + azure.tokens_issued(), 0);
}

#[test]
fn namesakes_in_two_groups_are_refused() {
    let mut other = AzureVm::new("VM1", IpAddr::from([10, 0, 0, 1]));
    other.resource_group = "elsewhere".into();
    let like = Like { vms: vec![AzureVm::new("vm1", IpAddr::from([10, 0, 0, 2])), other], ..Like::default() };
    let azure = AzureSandbox::start(like).unwrap();
    let error = list(&AzureQuery { resource_group: None, ..all() }, &options(&azure)).unwrap_err();
    assert!(error.to_string().contains("elsewhere") && error.to_string().contains("resource_group"), "{error}");
    assert_eq!(list(&all(), &options(&azure)).unwrap().len(), 1);
}

// Retrying and paging.

#[test]
fn throttled_requests_are_repeated_after_the_time_asked_for() {
    let azure = start(Like { throttle_first: 2, retry_after: 1, ..Like::default() }, 2);
    let began = std::time::Instant::now();
    assert_eq!(list(&all(), &options(&azure)).unwrap().len(), 2);
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn waiting_is_bounded() {
    let azure = start(Like { throttle_first: u32::MAX, retry_after: 600, ..Like::default() }, 2);
    let began = std::time::Instant::now();
    let error = list(&all(), &options(&azure)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Server, true));
    assert!(error.to_string().contains("429") && error.to_string().contains("limit of 30 seconds"), "{error}");
}

#[test]
fn a_link_to_another_host_is_not_followed() {
    let azure = start(Like { next_link_host: Some("127.0.0.2:1".into()), ..Like::default() }, 4);
    let error = list(&all(), &options(&azure)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.to_string().contains("a link to 127.0.0.2"), "{error}");
    assert_eq!(azure.requests().len(), 1);
}

#[test]
fn an_address_without_a_server_is_a_network_error() {
    let azure = azure(1);
    let options = options(&azure);
    let token = azure.issue_token();
    drop(azure);
    let error = list(&all(), &options).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Network, true));
    assert!(error.to_string().contains("login service"), "{error}");
    let options = AzureOptions { credential: Credential::Source(Arc::new(Fixed::new(&token))), ..options };
    let error = list(&all(), &options).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Network, true));
    assert!(error.to_string().contains("could not be reached"), "{error}");
}

// Credentials.

/// A token source of the caller, which counts how often it is asked.
struct Fixed {
    token: String,
    asked: AtomicUsize,
}

impl Fixed {
    fn new(token: &str) -> Self {
        Self { token: token.to_owned(), asked: AtomicUsize::new(0) }
    }
}

impl TokenSource for Fixed {
    fn token(&self, scope: &str) -> Result<AccessToken> {
        assert_eq!(scope, "https://management.azure.com/.default");
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(AccessToken::new(self.token.clone(), None))
    }
}

fn with(azure: &AzureSandbox, credential: Credential, variables: CredentialVariables) -> AzureOptions {
    AzureOptions { credential, variables, ..options(azure) }
}

#[test]
fn tokens_of_the_caller_are_used_and_asked_for_again_once() {
    let azure = azure(1);
    let good = Arc::new(Fixed::new(&azure.issue_token()));
    assert_eq!(
        list(&all(), &with(&azure, Credential::Source(good.clone()), CredentialVariables::default())).unwrap().len(),
        1
    );
    assert_eq!(good.asked.load(Ordering::Relaxed), 1);
    let bad = Arc::new(Fixed::new("made-up-token-text"));
    let error =
        list(&all(), &with(&azure, Credential::Source(bad.clone()), CredentialVariables::default())).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Authentication, false));
    assert_eq!(bad.asked.load(Ordering::Relaxed), 2);
    assert!(
        !error.full_message().contains("made-up-token-text")
            && error.to_string().contains("InvalidAuthenticationToken"),
        "{error}"
    );
}

#[test]
fn a_token_that_has_expired_is_not_even_sent() {
    struct Expired;
    impl TokenSource for Expired {
        fn token(&self, _: &str) -> Result<AccessToken> {
            Ok(AccessToken::new("secret-text", Some(Utc::now() - chrono::Duration::seconds(1))))
        }
    }
    let azure = azure(1);
    let error =
        list(&all(), &with(&azure, Credential::Source(Arc::new(Expired)), CredentialVariables::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(
        error.to_string().contains("token that expired at") && !error.to_string().contains("secret-text"),
        "{error}"
    );
    assert!(azure.requests().is_empty());
}

/// Gives the sandbox's own tokens, and takes back the first as soon as it is handed out.
struct Revoked(Arc<Mutex<AzureSandbox>>, AtomicUsize);

impl TokenSource for Revoked {
    fn token(&self, _: &str) -> Result<AccessToken> {
        let azure = self.0.lock().unwrap();
        let token = azure.issue_token();
        if self.1.fetch_add(1, Ordering::Relaxed) == 0 {
            azure.revoke_tokens();
        }
        Ok(AccessToken::new(token, Some(Utc::now() + chrono::Duration::hours(1))))
    }
}

#[test]
fn a_token_that_was_revoked_is_replaced_once() {
    let azure = azure(2);
    let options = options(&azure);
    let azure = Arc::new(Mutex::new(azure));
    let credential = Credential::Source(Arc::new(Revoked(azure.clone(), AtomicUsize::new(0))));
    assert_eq!(list(&all(), &AzureOptions { credential, ..options }).unwrap().len(), 2);
    assert_eq!(azure.lock().unwrap().tokens_issued(), 2);
}

#[test]
fn short_lived_tokens_are_renewed_while_pages_are_read() {
    // Half of two seconds: every token is replaced before it ends, and the throttling makes the listing take longer.
    let like = Like { token_lifetime: Duration::from_secs(2), throttle_first: 3, retry_after: 1, ..Like::default() };
    let azure = start(like, 4);
    assert_eq!(list(&all(), &options(&azure)).unwrap().len(), 4);
    assert!(azure.tokens_issued() >= 2, "{}", azure.tokens_issued());
}

#[test]
fn a_wrong_secret_is_refused_without_being_shown() {
    let azure = azure(1);
    let credential = Credential::service_principal(TENANT_ID, CLIENT_ID, "wrong-secret-value".to_owned());
    let error = list(&all(), &with(&azure, credential.clone(), CredentialVariables::default())).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Authentication, false));
    assert!(error.to_string().contains("AADSTS7000215"), "{error}");
    assert!(
        !error.full_message().contains("wrong-secret-value")
            && !format!("{error:?}{credential:?}").contains("wrong-secret-value")
    );
    for tenant in ["no tenant", "..", ""] {
        let credential = Credential::service_principal(tenant, CLIENT_ID, "x".to_owned());
        let error = list(&all(), &with(&azure, credential, CredentialVariables::default())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn the_environment_has_a_service_principal_a_workload_identity_or_a_managed_identity() {
    let azure = azure(2);
    let (url, secret) = (azure.url(), azure.client_secret());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), azure.federated_token()).unwrap();
    let path = file.path().to_str().unwrap();
    let ids = [("AZURE_TENANT_ID", TENANT_ID), ("AZURE_CLIENT_ID", CLIENT_ID)];
    let endpoint = format!("{url}/metadata/identity/oauth2/token");
    let app_service = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "header-of-app-service")];
    let environments = [
        CredentialVariables::from(app_service),
        CredentialVariables::from([ids[0], ids[1], ("AZURE_CLIENT_SECRET", &secret)]),
        CredentialVariables::from([ids[0], ids[1], ("AZURE_FEDERATED_TOKEN_FILE", path)]),
        CredentialVariables::from([("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]),
        CredentialVariables::from([
            ("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str()),
            ("AZURE_CLIENT_ID", IDENTITY_CLIENT_ID),
        ]),
    ];
    for (nth, variables) in environments.into_iter().enumerate() {
        let options = with(&azure, Credential::Environment, variables);
        assert_eq!(list(&all(), &options).unwrap().len(), 2, "environment {nth}");
        assert_eq!(azure.tokens_issued(), nth + 1);
    }
    let fabric = CredentialVariables::from([app_service[0], app_service[1], ("IDENTITY_SERVER_THUMBPRINT", "x")]);
    for (source, variables) in [
        ("Service Fabric", fabric),
        ("Azure Arc", CredentialVariables::from([app_service[0], ("IMDS_ENDPOINT", "http://localhost:40342")])),
        ("Cloud Shell", CredentialVariables::from([("MSI_ENDPOINT", "http://localhost:50342/oauth2/token")])),
    ] {
        let error = list(&all(), &with(&azure, Credential::Environment, variables)).unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains(source), "{error}");
    }
    let variables = CredentialVariables::from([("AZURE_POD_IDENTITY_AUTHORITY_HOST", url.as_str())]);
    let managed = |id: &str| Credential::ManagedIdentity { client_id: Some(id.to_owned()) };
    assert_eq!(list(&all(), &with(&azure, managed(IDENTITY_CLIENT_ID), variables.clone())).unwrap().len(), 2);
    let error = list(&all(), &with(&azure, managed("another-identity"), variables)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(error.to_string().starts_with("the managed identity gave no token"), "{error}");
    let unknown = CredentialVariables::from([
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*url),
        ("AZURE_CLIENT_ID", "another-identity"),
    ]);
    let error = list(&all(), &with(&azure, Credential::Environment, unknown)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
    let text = error.to_string();
    for part in
        ["AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE", "managed identity", "not been assigned", "credential="]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn without_a_metadata_service_the_error_says_what_was_tried_and_soon() {
    let azure = azure(1);
    // A port that was reserved and has no listener: connections are refused.
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = format!("http://{reserved}");
    let variables =
        CredentialVariables::from([("AZURE_POD_IDENTITY_AUTHORITY_HOST", &*host), ("AZURE_TENANT_ID", TENANT_ID)]);
    let began = std::time::Instant::now();
    let error = list(&all(), &with(&azure, Credential::Environment, variables)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Authentication, false));
    assert!(error.to_string().contains("AZURE_CLIENT_ID and AZURE_CLIENT_SECRET are not set"), "{error}");
}

// What is remembered.

fn remembering(azure: &AzureSandbox, dir: &std::path::Path, max_age: u64, max_stale: u64) -> AzureOptions {
    AzureOptions {
        max_age: Duration::from_secs(max_age),
        max_stale: Duration::from_secs(max_stale),
        state_dir: Some(dir.join("state")),
        ..options(azure)
    }
}

#[test]
fn young_listings_are_taken_from_the_process_and_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let azure = azure(2);
    let options = remembering(&azure, dir.path(), 300, 300);
    let first = list(&all(), &options).unwrap();
    let asked = azure.requests().len();
    for from_file in [false, true] {
        if from_file {
            crate::runtime::lock(&super::cache::IN_PROCESS).clear();
        }
        let again = list(&all(), &options).unwrap();
        assert_eq!(again, first);
        let origin = again.origin().unwrap();
        assert!(origin.remembered);
        assert_eq!(
            (&origin.left_out, origin.listed_at),
            (&first.origin().unwrap().left_out, first.origin().unwrap().listed_at)
        );
    }
    assert_eq!(azure.requests().len(), asked);
    assert_eq!(list(&named(&["vm1"]), &options).unwrap().len(), 1, "another listing is another memory");
    assert!(azure.requests().len() > asked);
    let fresh = list(&all(), &AzureOptions { max_age: Duration::ZERO, ..options }).unwrap();
    assert!(!fresh.origin().unwrap().remembered);
}

#[test]
fn the_file_is_for_its_owner_alone_and_holds_no_secret() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let azure = azure(2);
    list(&all(), &remembering(&azure, dir.path(), 300, 300)).unwrap();
    let files: Vec<_> =
        std::fs::read_dir(dir.path().join("state")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(std::fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(dir.path().join("state")).unwrap().permissions().mode() & 0o777, 0o700);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains("127.0.0.11") && !text.contains(&azure.client_secret()), "{text}");
    // A damaged file is as good as none.
    for damage in ["", "{", "{\"version\": 1}"] {
        std::fs::write(&files[0], damage).unwrap();
        crate::runtime::lock(&super::cache::IN_PROCESS).clear();
        assert!(!list(&all(), &remembering(&azure, dir.path(), 300, 300)).unwrap().origin().unwrap().remembered);
    }
}

#[test]
fn an_older_listing_is_taken_with_a_warning_while_resource_manager_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let azure = azure(2);
    list(&all(), &remembering(&azure, dir.path(), 300, 300)).unwrap();
    azure.set_down(true);
    let mut options = remembering(&azure, dir.path(), 0, 300);
    options.timeout = Duration::from_secs(2);
    let stale = list(&all(), &options).unwrap();
    let origin = stale.origin().unwrap();
    assert!(origin.remembered);
    let warning = origin.warning.clone().unwrap();
    assert!(warning.contains(" ago are taken instead") && warning.contains("503"), "{warning}");
    let error = list(&all(), &AzureOptions { max_stale: Duration::ZERO, ..options.clone() }).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Server, true));
    // What a retry cannot help is never hidden.
    azure.set_down(false);
    let wrong = Credential::service_principal(TENANT_ID, CLIENT_ID, "wrong".to_owned());
    let error = list(&all(), &AzureOptions { credential: wrong, ..options }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication);
}

#[test]
fn that_nothing_runs_is_not_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let azure = azure(1);
    azure.set_power("vm1", "deallocated").unwrap();
    let options = remembering(&azure, dir.path(), 300, 300);
    assert!(list(&all(), &options).is_err());
    azure.set_power("vm1", "running").unwrap();
    assert_eq!(list(&all(), &options).unwrap().len(), 1);
}
