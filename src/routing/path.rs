//! A source's path: fixed segments and at most one `{type}`.

/// Most bytes of an event type in a path.
const MAX_TYPE_BYTES: usize = 255;

/// A checked path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(String);

const TYPE: &str = "{type}";

impl Path {
    /// Checks the text; the error says what to change.
    pub fn parse(text: &str) -> Result<Path, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("the path must begin with `/`: write `/{text}`"));
        };
        for segment in rest.split('/') {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
            match segment {
                TYPE => {}
                "" => return Err("the path has an empty segment".to_owned()),
                "." | ".." => return Err(format!("the path has a `{segment}` segment")),
                _ if segment.contains(['{', '}']) => {
                    return Err(format!("only {TYPE} may stand in braces, as a whole segment"));
                }
                _ if !segment.bytes().all(plain) => {
                    return Err(format!(
                        "`{segment}` holds a character that a path cannot hold as it is"
                    ));
                }
                _ => {}
            }
        }
        if rest.split('/').filter(|segment| *segment == TYPE).count() > 1 {
            return Err(format!("{TYPE} may stand in a path only once"));
        }
        Ok(Path(text.to_owned()))
    }

    /// Whether the path says the event's type.
    pub fn has_type(&self) -> bool {
        self.0.split('/').any(|segment| segment == TYPE)
    }

    /// The request path for an event type.
    pub fn of_type(&self, event_type: &str) -> String {
        self.0.replace(TYPE, event_type)
    }

    /// As it stands in the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether some request path belongs to both.
    pub fn overlaps(&self, other: &Path) -> bool {
        let (mine, others) = (self.0.split('/'), other.0.split('/'));
        mine.clone().count() == others.clone().count()
            && mine.zip(others).all(|(a, b)| a == b || a == TYPE || b == TYPE)
    }

    /// Exact match of a request's raw path: `None` if it is not this path, else the type it names,
    /// if any. Nothing is decoded, so `%2f` or `..` match nothing.
    pub fn matches<'p>(&self, path: &'p str) -> Option<Option<&'p str>> {
        let mut event_type = None;
        let mut segments = path.split('/');
        for expected in self.0.split('/') {
            let segment = segments.next()?;
            if expected == TYPE {
                event_type = Some(is_type(segment).then_some(segment)?);
            } else if segment != expected {
                return None;
            }
        }
        segments.next().is_none().then_some(event_type)
    }
}

/// Whether an event type can stand in a path.
pub fn is_type(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
    (1..=MAX_TYPE_BYTES).contains(&segment.len())
        && segment.bytes().all(allowed)
        && !matches!(segment, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_matches_exactly_or_not_at_all() {
        let path = Path::parse("/hooks/sonzai/{type}").unwrap();
        for (request, expected) in [
            ("/hooks/sonzai/agent.message", Some(Some("agent.message"))),
            ("/hooks/sonzai/", None),
            ("/hooks/sonzai", None),
            ("/hooks/sonzai/a/b", None),
            ("/hooks/sonzai/a/", None),
            ("//hooks/sonzai/a", None),
            ("/hooks/sonzai/a%2fb", None),
            ("/hooks/sonzai/..", None),
            ("/hooks/Sonzai/a", None),
            ("hooks/sonzai/a", None),
        ] {
            assert_eq!(path.matches(request), expected, "{request}");
        }
        assert_eq!(Path::parse("/hooks/miibo").unwrap().matches("/hooks/miibo"), Some(None));
    }

    #[test]
    fn overlapping_paths_are_found() {
        for (a, b, expected) in [
            ("/a", "/a", true),
            ("/a", "/b", false),
            ("/a/{type}", "/a/b", true),
            ("/a/{type}", "/{type}/b", true),
            ("/a/{type}", "/a", false),
            ("/a/{type}/c", "/a/b/d", false),
        ] {
            let (a, b) = (Path::parse(a).unwrap(), Path::parse(b).unwrap());
            assert_eq!(a.overlaps(&b), expected, "{a:?} {b:?}");
            assert_eq!(b.overlaps(&a), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_path_no_request_could_name_is_refused() {
        for text in [
            "",
            "a",
            "/",
            "/a//b",
            "/a/",
            "/a/..",
            "/a b",
            "/a%20",
            "/{typ}",
            "/x{type}",
            "/{type}/{type}",
            "/a?b",
            "/日本",
        ] {
            assert!(Path::parse(text).is_err(), "{text}");
        }
    }
}
