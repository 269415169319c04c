//! URLs of HTTP, in the file: where an API is, and how its webhooks reach us.

use http::Uri;

use crate::host::is_loopback;

/// One that may be begun with: whatever follows is appended.
#[derive(Debug, PartialEq, Eq)]
pub struct WebUrl {
    /// Without a slash at its end.
    pub text: String,
    /// Whether nobody reads along: it is `https://`, or stays on this machine.
    pub is_private: bool,
}

impl WebUrl {
    /// The error says what is wrong, and repeats nothing of the URL: it may hold a password.
    pub fn parse(text: &str) -> Result<WebUrl, &'static str> {
        let is_secure = text.starts_with("https://");
        if !is_secure && !text.starts_with("http://") {
            return Err("the URL must begin with `https://` or `http://`");
        }
        if text.contains(['?', '#']) {
            return Err("the URL may have no query and no fragment (`?` and `#`)");
        }
        let uri: Uri = text.parse().map_err(|_| "this is no URL")?;
        let authority = uri.authority().ok_or("the URL has no host")?.as_str();
        if authority.contains('@') {
            return Err("the URL may hold no user and no password");
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("the URL has no host")?;
        let port = authority.get(host.len()..).unwrap_or_default();
        if !port.is_empty() && uri.port_u16().is_none_or(|port| port == 0) {
            return Err("the URL's port is none");
        }
        let path = uri.path().trim_end_matches('/');
        if path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | "..")) {
            return Err("the URL's path has a segment that is empty, `.` or `..`");
        }
        if path.contains(['{', '}']) {
            return Err("the URL has no placeholders: `{type}` stands in `path:`");
        }
        Ok(WebUrl {
            text: text.trim_end_matches('/').to_owned(),
            is_private: is_secure || is_loopback(host),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_without_its_last_slash() {
        for (given, text, is_private) in [
            ("https://api.sonz.ai", "https://api.sonz.ai", true),
            ("https://api.sonz.ai/", "https://api.sonz.ai", true),
            ("https://proxy.example:8443/sonzai/v2/", "https://proxy.example:8443/sonzai/v2", true),
            ("http://api.example", "http://api.example", false),
            ("http://127.0.0.1:8089", "http://127.0.0.1:8089", true),
            ("http://127.8.8.8", "http://127.8.8.8", true),
            ("http://[::1]:8089/", "http://[::1]:8089", true),
            ("http://LocalHost", "http://LocalHost", true),
            ("http://localhost.example", "http://localhost.example", false),
            ("http://10.0.0.1", "http://10.0.0.1", false),
        ] {
            let expected = WebUrl { text: text.to_owned(), is_private };
            assert_eq!(WebUrl::parse(given), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_nothing_can_be_appended_to_is_refused() {
        for given in [
            "",
            "api.sonz.ai",
            "ftp://api.sonz.ai",
            "https://",
            "https:///x",
            "https://:8443",
            "https://a:0",
            "https://a:99999",
            "https://a:",
            "https://u@a",
            "https://u:p@a",
            "https://a?x=1",
            "https://a/#x",
            "https://a b",
            "https://a\n",
            "https://a/..",
            "https://a//b",
            "https://a/./b",
            "https://a/{type}",
        ] {
            assert!(WebUrl::parse(given).is_err(), "{given}");
        }
    }
}
