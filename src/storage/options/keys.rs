//! The options of each cloud: their names, their kinds of values, and the error for an unknown name.

use object_store::ClientConfigKey as Client;
use object_store::aws::AmazonS3ConfigKey as S3;
use object_store::azure::AzureConfigKey as Azure;
use object_store::gcp::GoogleConfigKey as Google;

use super::RETRY_NAMES;
use crate::error::Error;
use crate::storage::counting::DELAY_OPTION;
use crate::storage::root::StoreKind;

/// The usual names of the options of every cloud.
const CLIENT_NAMES: &str = "
    allow_http allow_invalid_certificates user_agent default_content_type randomize_addresses
    timeout connect_timeout read_timeout pool_idle_timeout pool_max_idle_per_host
    proxy_url proxy_ca_certificate proxy_excludes
    http1_only http2_only http2_keep_alive_interval http2_keep_alive_timeout http2_keep_alive_while_idle
    http2_max_frame_size";
const AZURE_NAMES: &str = "
    azure_storage_account_name account_name azure_container_name
    azure_storage_account_key azure_storage_access_key account_key access_key
    azure_storage_sas_key azure_storage_sas_token sas_key sas_token
    azure_storage_token bearer_token
    azure_storage_client_id azure_client_id client_id
    azure_storage_client_secret azure_client_secret client_secret
    azure_storage_tenant_id azure_tenant_id tenant_id
    azure_storage_authority_host azure_authority_host
    azure_federated_token_file azure_msi_endpoint azure_identity_endpoint azure_object_id azure_msi_resource_id
    azure_use_azure_cli azure_skip_signature azure_credential_type
    azure_storage_use_emulator azure_storage_endpoint azure_use_fabric_endpoint azure_storage_encryption_key";
const S3_NAMES: &str = "
    aws_access_key_id access_key_id
    aws_secret_access_key secret_access_key
    aws_session_token session_token
    aws_region region aws_default_region aws_bucket
    aws_endpoint aws_endpoint_url aws_endpoint_url_s3 endpoint endpoint_url
    aws_virtual_hosted_style_request aws_s3_express aws_metadata_endpoint aws_imdsv1_fallback
    aws_container_credentials_relative_uri aws_container_credentials_full_uri
    aws_container_authorization_token_file
    aws_web_identity_token_file aws_role_arn aws_role_session_name aws_endpoint_url_sts
    aws_skip_signature aws_unsigned_payload aws_checksum_algorithm aws_conditional_put aws_disable_bulk_delete
    aws_request_payer aws_server_side_encryption aws_sse_kms_key_id";
const GOOGLE_NAMES: &str = "
    google_service_account google_service_account_path service_account
    google_service_account_key service_account_key
    google_application_credentials google_base_url google_skip_signature";

/// The main names of the options that are parts of an identity.
pub(super) const IDENTITY_NAMES: &str = "
    azure_storage_account_key azure_storage_sas_key azure_storage_token azure_storage_client_secret
    azure_federated_token_file azure_use_azure_cli azure_skip_signature azure_fabric_session_token
    aws_access_key_id aws_secret_access_key aws_session_token aws_web_identity_token_file aws_role_arn
    aws_container_credentials_relative_uri aws_container_credentials_full_uri
    aws_container_authorization_token_file aws_skip_signature
    google_service_account google_service_account_key google_application_credentials google_skip_signature";
/// The main names of the options whose values are not plain text.
pub(super) const KINDS: [(ValueKind, &str); 7] = [
    (
        ValueKind::Flag,
        "allow_http allow_invalid_certificates disable_system_certificates randomize_addresses
         http1_only http2_only http2_keep_alive_while_idle
         azure_use_azure_cli azure_skip_signature azure_storage_use_emulator azure_use_fabric_endpoint
         azure_disable_tagging
         aws_imdsv1_fallback aws_virtual_hosted_style_request aws_s3_express aws_unsigned_payload
         aws_skip_signature aws_disable_tagging aws_disable_bulk_delete aws_request_payer
         google_skip_signature",
    ),
    (
        ValueKind::Time,
        "timeout connect_timeout read_timeout pool_idle_timeout http2_keep_alive_interval http2_keep_alive_timeout",
    ),
    (
        ValueKind::CredentialFile,
        "azure_federated_token_file aws_web_identity_token_file aws_container_authorization_token_file
         google_service_account google_application_credentials",
    ),
    (
        ValueKind::Url(Address::Server),
        "azure_storage_endpoint azure_storage_authority_host azure_fabric_token_service_url
         aws_endpoint aws_endpoint_url_s3 google_base_url",
    ),
    (ValueKind::Url(Address::TlsOnly), "aws_endpoint_url_sts"),
    // Addresses of this machine or its host, which use plain HTTP by design.
    (ValueKind::Url(Address::Metadata), "azure_msi_endpoint aws_metadata_endpoint aws_container_credentials_full_uri"),
    (ValueKind::Url(Address::Proxy), "proxy_url"),
];

/// One option of one cloud, which can have several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::storage) enum OptionKey {
    Azure(Azure),
    S3(S3),
    Google(Google),
}

impl OptionKey {
    pub(super) fn parse(kind: StoreKind, name: &str) -> Option<Self> {
        match kind {
            StoreKind::Local => None,
            StoreKind::Azure => name.parse().ok().map(Self::Azure),
            StoreKind::S3 => name.parse().ok().map(Self::S3),
            StoreKind::Google => name.parse().ok().map(Self::Google),
        }
    }

    /// The main name in object_store.
    pub(in crate::storage) fn name(&self) -> &str {
        match self {
            Self::Azure(key) => key.as_ref(),
            Self::S3(key) => key.as_ref(),
            Self::Google(key) => key.as_ref(),
        }
    }

    /// The option of all clouds, if it is one.
    pub(super) fn client(self) -> Option<Client> {
        match self {
            Self::Azure(Azure::Client(key)) | Self::S3(S3::Client(key)) | Self::Google(Google::Client(key)) => {
                Some(key)
            }
            _ => None,
        }
    }

    /// Whether the option is a part of an identity. These come all from the options or all from the environment, so that
    /// parts of two identities are never combined.
    pub(super) fn is_identity(self) -> bool {
        is_in(IDENTITY_NAMES, self.name())
    }

    /// The kind of value that the option has.
    pub(super) fn kind(self) -> ValueKind {
        KINDS.iter().find(|(_, names)| is_in(names, self.name())).map_or(ValueKind::Text, |(kind, _)| *kind)
    }

    pub(in crate::storage) fn allows_http(self) -> bool {
        self.client() == Some(Client::AllowHttp)
    }
}

fn is_in(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|known| known == name)
}

/// What an option's value has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueKind {
    Text,
    Flag,
    Time,
    /// The name of a file that holds a credential.
    CredentialFile,
    Url(Address),
}

/// What a URL is the address of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Server,
    TlsOnly,
    Metadata,
    /// The only URL that can hold a user and a password.
    Proxy,
}

/// The kinds of store that have options.
pub(super) const CLOUDS: [StoreKind; 3] = [StoreKind::Azure, StoreKind::S3, StoreKind::Google];

/// The usual names of the options of a store.
pub(super) fn names(kind: StoreKind) -> impl Iterator<Item = &'static str> {
    let own = match kind {
        StoreKind::Local => "",
        StoreKind::Azure => AZURE_NAMES,
        StoreKind::S3 => S3_NAMES,
        StoreKind::Google => GOOGLE_NAMES,
    };
    own.split_whitespace().chain(CLIENT_NAMES.split_whitespace()).chain(RETRY_NAMES).chain([DELAY_OPTION])
}

/// The error for `name` (in lower case `lower`), which is not an option of a store of `kind`.
pub(super) fn not_an_option(kind: StoreKind, name: &str, lower: &str) -> Error {
    if matches!(lower, "aws_s3_locking_provider" | "aws_s3_allow_unsafe_rename" | "allow_unsafe_rename") {
        return Error::invalid(format!(
            "'{name}' is not needed: commits are conditional writes of S3 itself; leave it out"
        ));
    }
    let is_option_of =
        |other: &StoreKind| OptionKey::parse(*other, lower).is_some() && names(*other).any(|name| name == lower);
    if let Some(other) = CLOUDS.into_iter().find(|other| *other != kind && is_option_of(other)) {
        return Error::invalid(format!(
            "'{name}' is a storage option of {}:// roots, and the root is {}://; leave it out",
            other.scheme(),
            kind.scheme()
        ));
    }
    unknown(name, names(kind))
}

/// The error for an unknown name, with similar names from `known`.
pub(super) fn unknown(name: &str, known: impl Iterator<Item = &'static str>) -> Error {
    let lower = name.trim().to_ascii_lowercase();
    // A value in the place of a name could be a secret.
    if name.len() > 39 || !name.trim().chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Error::invalid("a key of storage_options is not a name; write it as {'name': 'value'}");
    }
    let mut near: Vec<_> = known
        .map(|known| (distance(&lower, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 3 || known.contains(&lower))
        .collect();
    near.sort_unstable();
    near.dedup();
    let near: Vec<_> = near.iter().take(3).map(|(_, known)| format!("'{known}'")).collect();
    let advice = if near.is_empty() {
        "docs/storage.md lists the options".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Error::invalid(format!("'{name}' is not a storage option; {advice}"))
}

/// The Levenshtein distance: the number of characters to insert, remove or replace to make `b` of `a`.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
