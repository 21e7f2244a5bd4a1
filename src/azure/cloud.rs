//! One Azure cloud: the addresses of Resource Manager and of the login service, and the audience of its tokens.

use url::Url;

use super::credential::CredentialVariables;
use crate::error::{Error, Result};
use crate::http::address::{AddressRules, is_loopback, without_userinfo};

/// Names, Resource Manager (which is also the audience of its tokens) and login service of the clouds that Microsoft runs.
/// Source: `az cloud list`.
const CLOUDS: [(&[&str], &str, &str); 3] = [
    (&["public", "azurecloud"], "https://management.azure.com", "https://login.microsoftonline.com"),
    (&["usgov", "azureusgovernment"], "https://management.usgovcloudapi.net", "https://login.microsoftonline.us"),
    (&["china", "azurechinacloud"], "https://management.chinacloudapi.cn", "https://login.chinacloudapi.cn"),
];

/// One Azure cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    arm: Url,
    authority: Url,
    audience: String,
}

impl Cloud {
    /// The cloud that `endpoint` names: `public` (also when there is none), `usgov`, `china`, or the address of a
    /// Resource Manager. The login service is `authority`, else the variable `AZURE_AUTHORITY_HOST`, else the cloud's own.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an unknown name, and for an address that is not `https://host[:port]`.
    /// `http` is allowed for this machine only, where the sandbox runs. A retry does not help.
    pub fn new(endpoint: Option<&str>, authority: Option<&str>, variables: &CredentialVariables) -> Result<Self> {
        let endpoint = endpoint.unwrap_or("public").trim();
        let name = endpoint.to_ascii_lowercase();
        let arm = match CLOUDS.iter().find(|(names, ..)| names.contains(&name.as_str())) {
            Some((_, arm, _)) => address("endpoint", arm)?,
            None if endpoint.contains("://") => address("endpoint", endpoint)?,
            None => {
                return Err(Error::invalid(format!(
                    "endpoint {:?} is not an Azure cloud: give public, usgov, china, or the https:// address of a Resource \
                     Manager",
                    without_userinfo(endpoint)
                )));
            }
        };
        let own = arm.as_str().trim_end_matches('/');
        let known = CLOUDS.iter().find(|(_, known, _)| *known == own);
        let (_, audience, own_authority) = known.unwrap_or(&CLOUDS[0]);
        let audience = if known.is_none() && !is_loopback(&arm) { own } else { audience }.to_owned();
        let authority = match authority.or_else(|| variables.get("AZURE_AUTHORITY_HOST")) {
            // Azure's own libraries accept a host without a scheme as well.
            Some(host) if !host.contains("://") => address("the authority host", &format!("https://{host}"))?,
            Some(url) => address("the authority host", url)?,
            None => address("the authority host", own_authority)?,
        };
        Ok(Self { arm, authority, audience })
    }

    /// The address of Resource Manager.
    pub fn arm(&self) -> &Url {
        &self.arm
    }

    /// The address of the login service.
    pub fn authority(&self) -> &Url {
        &self.authority
    }

    /// The scope of its tokens.
    pub fn scope(&self) -> String {
        format!("{}/.default", self.audience)
    }
}

fn address(name: &str, text: &str) -> Result<Url> {
    let https_only = Some("and tokens must not cross a network in clear text");
    let example = "https://management.azure.com";
    AddressRules { name, example, credentials: "", https_only, with_path: false }.parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(endpoint: Option<&str>, authority: Option<&str>) -> Result<Cloud> {
        Cloud::new(endpoint, authority, &CredentialVariables::default())
    }

    #[test]
    fn clouds_go_by_name_or_address() {
        let public = cloud(None, None).unwrap();
        assert_eq!(public.arm().as_str(), "https://management.azure.com/");
        assert_eq!(public.authority().as_str(), "https://login.microsoftonline.com/");
        assert_eq!(public.scope(), "https://management.azure.com/.default");
        assert_eq!(cloud(Some("AzureCloud"), None).unwrap(), public);
        assert_eq!(cloud(Some("https://management.azure.com/"), None).unwrap(), public);
        let gov = cloud(Some("usgov"), None).unwrap();
        assert_eq!(gov.authority().as_str(), "https://login.microsoftonline.us/");
        let by_address = cloud(Some("https://management.usgovcloudapi.net"), None).unwrap();
        assert_eq!(by_address, gov);
        let stack = cloud(Some("https://management.local.azurestack.external"), Some("login.example")).unwrap();
        assert_eq!(stack.scope(), "https://management.local.azurestack.external/.default");
        assert_eq!(stack.authority().as_str(), "https://login.example/");
    }

    #[test]
    fn the_variable_names_the_authority() {
        let variables = CredentialVariables::from([("AZURE_AUTHORITY_HOST", "https://login.chinacloudapi.cn/")]);
        let cloud = Cloud::new(None, None, &variables).unwrap();
        assert_eq!(cloud.authority().as_str(), "https://login.chinacloudapi.cn/");
        let cloud = Cloud::new(None, Some("https://login.microsoftonline.us"), &variables).unwrap();
        assert_eq!(cloud.authority().as_str(), "https://login.microsoftonline.us/");
    }

    #[test]
    fn http_is_for_this_machine_alone() {
        assert!(cloud(Some("http://127.0.0.1:8080"), Some("http://localhost:8080")).is_ok());
        for wrong in [
            "http://management.azure.com",
            "http://10.0.0.4",
            "ftp://x",
            "mars",
            "https://h/path",
            "https://h?x",
            "https://",
        ] {
            let error = cloud(Some(wrong), None).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{wrong}");
        }
        assert!(cloud(None, Some("http://login.example")).is_err());
        let error = cloud(Some("https://user:secret-word@host"), None).unwrap_err();
        assert!(!error.full_message().contains("secret-word"), "{error}");
    }
}
