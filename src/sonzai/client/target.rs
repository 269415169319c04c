//! What is asked for: a path below the API's base, and a query.

use http::{Uri, uri::PathAndQuery};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{SetupError, error::Why};

/// Everything but RFC 3986's unreserved characters: a value is one part, whatever is in it.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where every path of the API begins.
const ROOT: &str = "/api/v1";

/// Where the API is.
#[derive(Clone, Debug)]
pub struct Base {
    origin: Uri,
    /// Without a slash at its end.
    path: String,
    /// Host and perhaps port, for words.
    pub host: String,
}

impl Base {
    /// From a URL with a scheme, a host, perhaps a port and a path.
    pub fn parse(url: &str) -> Result<Base, SetupError> {
        let wrong = SetupError::Url;
        let origin: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        if !matches!(origin.scheme_str(), Some("http" | "https")) {
            return Err(wrong("must begin with https:// or http://"));
        }
        let host = origin.authority().map(ToString::to_string).unwrap_or_default();
        if host.is_empty() || host.contains('@') {
            return Err(wrong("must name a host, without a user"));
        }
        if origin.query().is_some() || url.contains('#') {
            return Err(wrong("must end with its path"));
        }
        let path = origin.path().trim_end_matches('/').to_owned();
        Ok(Base { origin, path, host })
    }

    pub fn is_tls(&self) -> bool {
        self.origin.scheme_str() == Some("https")
    }

    /// The URL of a target.
    pub fn join(&self, target: &Target) -> Result<Uri, Why> {
        if let Some(what) = target.unnamed {
            return Err(Why::Unaskable(format!("{what} must not be empty, `.` or `..`")));
        }
        let path = PathAndQuery::try_from(format!("{}{}", self.path, target.text));
        let mut parts = self.origin.clone().into_parts();
        parts.path_and_query =
            Some(path.map_err(|_| Why::Unaskable("its address is too long".to_owned()))?);
        Uri::from_parts(parts).map_err(|_| Why::Unaskable("its address is too long".to_owned()))
    }
}

/// A path below [`Base`] and a query.
#[derive(Clone, Debug)]
pub struct Target {
    text: String,
    asked: bool,
    /// The first part that cannot be one.
    unnamed: Option<&'static str>,
}

impl Target {
    /// The API's root.
    pub fn root() -> Target {
        Target { text: ROOT.to_owned(), asked: false, unnamed: None }
    }

    /// Adds a part that is a word of the API.
    pub fn word(mut self, word: &'static str) -> Target {
        self.text.push('/');
        self.text.push_str(word);
        self
    }

    /// Adds a part that is anybody's; `what` names it. Dots alone would lead elsewhere: on the way
    /// many take even encoded ones for a step.
    pub fn part(mut self, what: &'static str, value: &str) -> Target {
        if matches!(value, "" | "." | "..") {
            self.unnamed.get_or_insert(what);
        }
        self.text.push('/');
        self.text.extend(utf8_percent_encode(value, ENCODED));
        self
    }

    /// Adds a member of the query, if there is a value.
    pub fn query(mut self, name: &'static str, value: Option<&str>) -> Target {
        let Some(value) = value else { return self };
        self.text.push(if self.asked { '&' } else { '?' });
        self.asked = true;
        self.text.push_str(name);
        self.text.push('=');
        self.text.extend(utf8_percent_encode(value, ENCODED));
        self
    }

    /// The same with a number.
    pub fn number(self, name: &'static str, value: u32) -> Target {
        self.query(name, Some(&value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn url(base: &str, target: &Target) -> String {
        Base::parse(base).unwrap().join(target).unwrap().to_string()
    }

    #[test]
    fn a_part_is_one_part_whatever_is_in_it() {
        let target = Target::root()
            .word("agents")
            .part("the agent", "Luna 月/a?b#c")
            .word("notifications")
            .query("status", None)
            .query("user_id", Some("a&b=c d+%"))
            .number("limit", 50);
        let path = "/api/v1/agents/Luna%20%E6%9C%88%2Fa%3Fb%23c/notifications\
                    ?user_id=a%26b%3Dc%20d%2B%25&limit=50";
        for (base, expected) in [
            ("https://api.sonz.ai", "https://api.sonz.ai"),
            ("https://api.sonz.ai/", "https://api.sonz.ai"),
            ("http://127.0.0.1:4010/below/it/", "http://127.0.0.1:4010/below/it"),
            ("http://[::1]:80/a%20b", "http://[::1]:80/a%20b"),
        ] {
            assert_eq!(url(base, &target), format!("{expected}{path}"), "{base}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_not_asked_for() {
        let base = Base::parse("http://h").unwrap();
        for part in ["", ".", ".."] {
            let target = Target::root().word("agents").part("the agent", part).word("wakeups");
            let error = base.join(&target).unwrap_err().to_string();
            assert_eq!(error, "cannot ask for this: the agent must not be empty, `.` or `..`");
        }
        let long = Target::root().part("the agent", &"x".repeat(70_000));
        assert!(base.join(&long).unwrap_err().to_string().contains("too long"));
        let dots = Target::root().part("the agent", "...");
        assert_eq!(url("http://h", &dots), "http://h/api/v1/...");
    }

    #[test]
    fn what_is_no_base_says_why() {
        for (url, expected) in [
            ("", "is no URL"),
            ("api.sonz.ai", "must begin with"),
            ("ftp://api.sonz.ai", "must begin with"),
            ("https://me@api.sonz.ai", "without a user"),
            ("https://api.sonz.ai/?a=b", "must end with its path"),
            ("https://api.sonz.ai/#a", "must end with its path"),
        ] {
            let error = Base::parse(url).unwrap_err().to_string();
            assert!(error.starts_with("api.url: ") && error.contains(expected), "{url}: {error}");
        }
    }

    proptest! {
        #[test]
        fn every_part_and_value_comes_out_as_it_went_in(part in "\\PC{1,12}", value in any::<String>()) {
            prop_assume!(part != "." && part != "..");
            let target = Target::root().part("it", &part).query("q", Some(&value));
            let uri = Base::parse("http://h/p").unwrap().join(&target).unwrap();
            let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
            let parts: Vec<&str> = uri.path().split('/').collect();
            prop_assert_eq!(parts.len(), 5);
            prop_assert_eq!(decoded(parts[4]), part);
            prop_assert_eq!(decoded(uri.query().unwrap().strip_prefix("q=").unwrap()), value);
        }
    }
}
