//! The names of options, what each of them is about, and what to say about a name that is none.

use object_store::ClientConfigKey as Client;
use object_store::aws::AmazonS3ConfigKey as S3;
use object_store::azure::AzureConfigKey as Azure;
use object_store::gcp::GoogleConfigKey as Google;

use super::retry;
use crate::error::Error;
use crate::storage::root::StoreKind;

/// Options of every cloud.
const CLIENT_NAMES: [&str; 18] = [
    "allow_http",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "timeout",
    "user_agent",
    "allow_invalid_certificates",
];
const AZURE_NAMES: [&str; 34] = [
    "azure_storage_account_name",
    "account_name",
    "azure_storage_account_key",
    "azure_storage_access_key",
    "account_key",
    "access_key",
    "azure_storage_sas_key",
    "azure_storage_sas_token",
    "sas_key",
    "sas_token",
    "azure_storage_token",
    "bearer_token",
    "azure_storage_client_id",
    "azure_client_id",
    "client_id",
    "azure_storage_client_secret",
    "azure_client_secret",
    "client_secret",
    "azure_storage_tenant_id",
    "azure_tenant_id",
    "tenant_id",
    "azure_storage_authority_host",
    "azure_authority_host",
    "azure_federated_token_file",
    "azure_msi_endpoint",
    "azure_identity_endpoint",
    "azure_object_id",
    "azure_msi_resource_id",
    "azure_use_azure_cli",
    "azure_storage_use_emulator",
    "azure_storage_endpoint",
    "azure_use_fabric_endpoint",
    "azure_container_name",
    "azure_skip_signature",
];
const S3_NAMES: [&str; 33] = [
    "aws_access_key_id",
    "access_key_id",
    "aws_secret_access_key",
    "secret_access_key",
    "aws_session_token",
    "session_token",
    "aws_region",
    "region",
    "aws_default_region",
    "aws_endpoint",
    "aws_endpoint_url",
    "aws_endpoint_url_s3",
    "endpoint",
    "endpoint_url",
    "aws_bucket",
    "aws_virtual_hosted_style_request",
    "aws_s3_express",
    "aws_imdsv1_fallback",
    "aws_metadata_endpoint",
    "aws_unsigned_payload",
    "aws_checksum_algorithm",
    "aws_container_credentials_relative_uri",
    "aws_container_credentials_full_uri",
    "aws_container_authorization_token_file",
    "aws_web_identity_token_file",
    "aws_role_arn",
    "aws_role_session_name",
    "aws_endpoint_url_sts",
    "aws_skip_signature",
    "aws_conditional_put",
    "aws_request_payer",
    "aws_server_side_encryption",
    "aws_sse_kms_key_id",
];
const GOOGLE_NAMES: [&str; 8] = [
    "google_service_account",
    "google_service_account_path",
    "service_account",
    "google_service_account_key",
    "service_account_key",
    "google_application_credentials",
    "google_base_url",
    "google_skip_signature",
];

/// One option of one cloud, whichever of its names was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::storage) enum Key {
    Azure(Azure),
    S3(S3),
    Google(Google),
}

impl Key {
    pub(super) fn parse(kind: StoreKind, name: &str) -> Option<Self> {
        match kind {
            StoreKind::Local => None,
            StoreKind::Azure => name.parse().ok().map(Self::Azure),
            StoreKind::S3 => name.parse().ok().map(Self::S3),
            StoreKind::Google => name.parse().ok().map(Self::Google),
        }
    }

    /// The name that object_store itself has for it.
    pub(in crate::storage) fn name(&self) -> &str {
        match self {
            Self::Azure(key) => key.as_ref(),
            Self::S3(key) => key.as_ref(),
            Self::Google(key) => key.as_ref(),
        }
    }

    /// It is one of those that all clouds have.
    pub(super) fn client(self) -> Option<Client> {
        match self {
            Self::Azure(Azure::Client(key)) | Self::S3(S3::Client(key)) | Self::Google(Google::Client(key)) => {
                Some(key)
            }
            _ => None,
        }
    }

    /// Decides which identity is used: these come all from the options or all from the environment, so that one half
    /// of an identity never meets the other half of another one.
    pub(super) fn is_identity(self) -> bool {
        matches!(
            self,
            Self::Azure(
                Azure::AccessKey
                    | Azure::SasKey
                    | Azure::Token
                    | Azure::ClientSecret
                    | Azure::FederatedTokenFile
                    | Azure::UseAzureCli
                    | Azure::SkipSignature
                    | Azure::FabricSessionToken
            ) | Self::S3(
                S3::AccessKeyId
                    | S3::SecretAccessKey
                    | S3::Token
                    | S3::WebIdentityTokenFile
                    | S3::RoleArn
                    | S3::ContainerCredentialsRelativeUri
                    | S3::ContainerCredentialsFullUri
                    | S3::ContainerAuthorizationTokenFile
                    | S3::SkipSignature
            ) | Self::Google(
                Google::ServiceAccount
                    | Google::ServiceAccountKey
                    | Google::ApplicationCredentials
                    | Google::SkipSignature
            )
        )
    }

    /// Is either true or false.
    pub(super) fn is_flag(self) -> bool {
        matches!(
            self,
            Self::Azure(
                Azure::UseAzureCli
                    | Azure::SkipSignature
                    | Azure::UseEmulator
                    | Azure::UseFabricEndpoint
                    | Azure::DisableTagging
            ) | Self::S3(
                S3::ImdsV1Fallback
                    | S3::VirtualHostedStyleRequest
                    | S3::S3Express
                    | S3::UnsignedPayload
                    | S3::SkipSignature
                    | S3::DisableTagging
                    | S3::RequestPayer
            ) | Self::Google(Google::SkipSignature)
        ) || self.client().is_some_and(|key| {
            matches!(
                key,
                Client::AllowHttp
                    | Client::AllowInvalidCertificates
                    | Client::Http1Only
                    | Client::Http2Only
                    | Client::Http2KeepAliveWhileIdle
                    | Client::RandomizeAddresses
            )
        })
    }

    /// Names a file that holds a credential.
    pub(super) fn is_file(self) -> bool {
        matches!(
            self,
            Self::Azure(Azure::FederatedTokenFile)
                | Self::S3(S3::WebIdentityTokenFile | S3::ContainerAuthorizationTokenFile)
                | Self::Google(Google::ServiceAccount | Google::ApplicationCredentials)
        )
    }

    pub(in crate::storage) fn allows_http(self) -> bool {
        self.client() == Some(Client::AllowHttp)
    }

    /// What may be said about the URL that it holds, if it holds one.
    pub(super) fn url(self) -> Option<Address> {
        match self {
            Self::Azure(Azure::Endpoint | Azure::AuthorityHost | Azure::FabricTokenServiceUrl)
            | Self::S3(S3::Endpoint | S3::S3Endpoint)
            | Self::Google(Google::BaseUrl) => Some(Address::Server),
            Self::S3(S3::StsEndpoint) => Some(Address::TlsOnly),
            // Addresses of this machine or its host, which speak plain HTTP by design.
            Self::Azure(Azure::MsiEndpoint) | Self::S3(S3::MetadataEndpoint | S3::ContainerCredentialsFullUri) => {
                Some(Address::Metadata)
            }
            _ if self.client() == Some(Client::ProxyUrl) => Some(Address::Proxy),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    Server,
    TlsOnly,
    Metadata,
    /// The only URL in which a user and password have their place.
    Proxy,
}

/// Every kind of store that has options.
pub(super) fn clouds() -> impl Iterator<Item = StoreKind> {
    [StoreKind::Azure, StoreKind::S3, StoreKind::Google].into_iter()
}

/// The usual names of a store's options, for those who look for one.
pub(super) fn names(kind: StoreKind) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        StoreKind::Local => &[],
        StoreKind::Azure => &AZURE_NAMES,
        StoreKind::S3 => &S3_NAMES,
        StoreKind::Google => &GOOGLE_NAMES,
    };
    own.iter().chain(&CLIENT_NAMES).chain(&retry::NAMES).chain(&[crate::storage::delayed::OPTION]).copied().collect()
}

/// Why `name` (in lower case `lower`) is no option of a store of `kind`.
pub(super) fn not_an_option(kind: StoreKind, name: &str, lower: &str) -> Error {
    if matches!(lower, "aws_s3_locking_provider" | "aws_s3_allow_unsafe_rename" | "allow_unsafe_rename") {
        return Error::invalid(format!(
            "'{name}' is not needed: commits are conditional writes, which S3 itself decides; leave it out"
        ));
    }
    let other =
        clouds().find(|other| *other != kind && Key::parse(*other, lower).is_some() && names(*other).contains(&lower));
    if let Some(other) = other {
        return Error::invalid(format!(
            "'{name}' is a storage option of {}:// roots, and the root is {}://; leave it out",
            other.scheme(),
            kind.scheme()
        ));
    }
    unknown(name, &names(kind))
}

/// An unknown key, with the known ones that look like it.
pub(super) fn unknown(name: &str, known: &[&'static str]) -> Error {
    let lower = name.trim().to_ascii_lowercase();
    // A value in the place of a key might be a secret.
    if name.len() > 39 || !name.trim().chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Error::invalid("a key of storage_options is not a name; write it as {'name': 'value'}");
    }
    let mut near: Vec<_> = known
        .iter()
        .map(|&known| (distance(&lower, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 3 || known.contains(&lower))
        .collect();
    near.sort_unstable();
    near.dedup();
    let near: Vec<_> = near.iter().take(3).map(|(_, known)| format!("'{known}'")).collect();
    let advice = if near.is_empty() {
        "docs/storage.md lists the known ones".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Error::invalid(format!("'{name}' is not a storage option; {advice}"))
}

/// How many characters have to be inserted, removed or replaced to make `b` of `a` (Levenshtein).
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
