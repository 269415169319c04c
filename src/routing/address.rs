//! What each broker allows in an address. Payload text reaches addresses through templates, so what
//! is not allowed is refused, never escaped or replaced.

/// Longest NATS subject in bytes; a server's control line (4096 by default) also holds the reply
/// subject and sizes.
const MAX_SUBJECT_BYTES: usize = 1024;

/// Longest Kafka topic name, from Kafka's own rule.
const MAX_TOPIC_BYTES: usize = 249;

/// Longest topic of the `log` broker: its rotated files' names, which are longer, must fit the 255
/// bytes of a file name.
const MAX_LOG_TOPIC_BYTES: usize = 238;

/// Longest AMQP short string, which exchanges and routing keys are.
const MAX_AMQP_BYTES: usize = 255;

/// A rule that a rendered part of an address must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A Kafka topic: `[A-Za-z0-9._-]{1,249}`, not `.` or `..`.
    KafkaTopic,
    /// A topic of the `log` broker: Kafka's rule, shorter and without a leading dot, since it names
    /// a file.
    LogTopic,
    /// A NATS subject: non-empty tokens without wildcards, white space or control characters.
    NatsSubject,
    /// A RabbitMQ exchange or routing key.
    AmqpName,
    /// A Kafka record key: any text.
    Key,
}

impl Rule {
    /// Whether the finished text is allowed; the error says what is wrong with it.
    pub fn check(self, text: &str) -> Result<(), &'static str> {
        match (self, text) {
            (Rule::KafkaTopic | Rule::LogTopic, "") => return Err("a topic may not be empty"),
            (Rule::KafkaTopic, "." | "..") => return Err("a topic may not be `.` or `..`"),
            (Rule::NatsSubject, "") => return Err("a subject may not be empty"),
            _ => {}
        }
        self.check_length(text.len())?;
        self.check_part(text, true, true)
    }

    /// Whether text of so many bytes is allowed.
    pub fn check_length(self, bytes: usize) -> Result<(), &'static str> {
        let (most, why) = match self {
            Rule::KafkaTopic => (MAX_TOPIC_BYTES, "a topic has at most 249 characters"),
            Rule::LogTopic => (MAX_LOG_TOPIC_BYTES, "a log topic has at most 238 characters"),
            Rule::NatsSubject => (MAX_SUBJECT_BYTES, "a subject has at most 1024 bytes"),
            Rule::AmqpName => (MAX_AMQP_BYTES, "RabbitMQ takes at most 255 bytes here"),
            Rule::Key => return Ok(()),
        };
        if bytes > most { Err(why) } else { Ok(()) }
    }

    /// Whether text that is a part of an address is allowed, whatever stands beside it; whether it
    /// begins the address, and whether it ends it.
    pub fn check_part(self, text: &str, begins: bool, ends: bool) -> Result<(), &'static str> {
        match self {
            Rule::KafkaTopic => check_topic_part(text),
            Rule::LogTopic if begins && text.starts_with('.') => {
                Err("a log topic may not begin with a dot")
            }
            Rule::LogTopic => check_topic_part(text),
            Rule::NatsSubject => check_subject_part(text, begins, ends),
            Rule::AmqpName if text.contains(char::is_control) => {
                Err("control characters are not allowed here")
            }
            Rule::AmqpName | Rule::Key => Ok(()),
        }
    }

    /// Whether payload text may be put in at all: in a subject it must stay within its token.
    pub fn check_value(self, value: &str) -> Result<(), &'static str> {
        if self != Rule::NatsSubject {
            return Ok(());
        }
        if value.contains('.') {
            return Err("a value inside a NATS subject may not contain a dot");
        }
        if value.starts_with('$') {
            return Err("a value inside a NATS subject may not begin with `$`");
        }
        Ok(())
    }
}

fn check_topic_part(text: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if text.bytes().all(allowed) {
        return Ok(());
    }
    Err("a topic may hold only letters, digits, `.`, `_` and `-`")
}

fn check_subject_part(text: &str, begins: bool, ends: bool) -> Result<(), &'static str> {
    if begins && text.starts_with('$') {
        return Err("subjects that begin with `$` belong to the server");
    }
    let outer = begins && text.starts_with('.') || ends && text.ends_with('.');
    if outer || text.contains("..") {
        return Err("a subject may not have an empty token");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>') {
        return Err("a subject may not hold `*`, `>`, white space or control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_refused_only_for_what_nothing_beside_it_can_mend() {
        use Rule::*;
        for (rule, text, begins, ends, allowed) in [
            (NatsSubject, "", true, false, true),
            (NatsSubject, "agents.", true, false, true),
            (NatsSubject, "agents.", false, true, false),
            (NatsSubject, ".mood", false, true, true),
            (NatsSubject, ".mood", true, false, false),
            (NatsSubject, "a..b", false, false, false),
            (NatsSubject, "$x", false, false, true),
            (NatsSubject, "$x", true, false, false),
            (NatsSubject, "a b", false, false, false),
            (KafkaTopic, ".", false, false, true),
            (KafkaTopic, "a/", true, false, false),
            (LogTopic, ".", true, false, false),
            (LogTopic, ".", false, false, true),
            (AmqpName, "a\0", false, false, false),
            (Key, "a\0", false, false, true),
        ] {
            let outcome = rule.check_part(text, begins, ends);
            assert_eq!(outcome.is_ok(), allowed, "{rule:?} {text:?} {begins} {ends}");
        }
    }

    #[test]
    fn each_broker_takes_only_what_it_reads_as_one_address() {
        use Rule::*;
        let long = "x".repeat(250);
        let short = "x".repeat(249);
        let bytes_256 = "x".repeat(256);
        for (rule, text, allowed) in [
            (KafkaTopic, "agent.message", true),
            (KafkaTopic, ".hidden", true),
            (KafkaTopic, &*short, true),
            (KafkaTopic, &*long, false),
            (KafkaTopic, "", false),
            (KafkaTopic, ".", false),
            (KafkaTopic, "..", false),
            (KafkaTopic, "a/b", false),
            (KafkaTopic, "a b", false),
            (KafkaTopic, "日本", false),
            (LogTopic, "other", true),
            (LogTopic, ".other", false),
            (LogTopic, "..", false),
            (LogTopic, &*short, false),
            (LogTopic, "../x", false),
            (NatsSubject, "agents.a1.mood", true),
            (NatsSubject, "agents.日本", true),
            (NatsSubject, "agents.*", false),
            (NatsSubject, "agents.>", false),
            (NatsSubject, "agents..mood", false),
            (NatsSubject, ".agents", false),
            (NatsSubject, "agents.", false),
            (NatsSubject, "a b", false),
            (NatsSubject, "a\u{a0}b", false),
            (NatsSubject, "a\r\nPUB x", false),
            (NatsSubject, "$JS.API.STREAM.DELETE.x", false),
            (NatsSubject, "", false),
            (AmqpName, "", true),
            (AmqpName, "message.u1", true),
            (AmqpName, &*bytes_256, false),
            (AmqpName, "a\0b", false),
            (Key, "anything\n", true),
        ] {
            assert_eq!(rule.check(text).is_ok(), allowed, "{rule:?} {text:?}");
        }
    }
}
