//! Inputs that several targets are made of: mostly well-formed, so that little is spent on what is
//! refused at once, and with what has a meaning somewhere put in often.

use arbitrary::Arbitrary;
use serde_json::json;

/// Any text, or one that means something to a broker, a template or a path.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Text<'a> {
    Any(&'a str),
    Special(Special),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Special {
    Empty,
    Dot,
    Dollar,
    Star,
    Greater,
    Space,
    Newline,
    Slash,
    Open,
    Close,
    Plain,
    Dotted,
    NotAscii,
    Long,
}

impl<'a> Text<'a> {
    pub fn get(self) -> &'a str {
        const LONG: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\
                            0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        match self {
            Text::Any(text) => text,
            Text::Special(special) => match special {
                Special::Empty => "",
                Special::Dot => ".",
                Special::Dollar => "$",
                Special::Star => "*",
                Special::Greater => ">",
                Special::Space => " ",
                Special::Newline => "\n",
                Special::Slash => "/",
                Special::Open => "{",
                Special::Close => "}",
                Special::Plain => "agent-7",
                Special::Dotted => "a.b",
                Special::NotAscii => "日",
                Special::Long => LONG,
            },
        }
    }
}

/// A name in a JSON object. Few, so that they meet.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Name {
    A,
    B,
    NotAscii,
}

impl Name {
    pub fn get(self) -> &'static str {
        match self {
            Name::A => "a",
            Name::B => "b",
            Name::NotAscii => "日",
        }
    }

    /// As it may be written in a body.
    fn written(self, escaped: bool) -> &'static str {
        match self {
            Name::A if escaped => r#""\u0061""#,
            Name::A => r#""a""#,
            Name::B => r#""b""#,
            Name::NotAscii if escaped => r#""\u65e5""#,
            Name::NotAscii => "\"日\"",
        }
    }
}

/// A body: JSON as somebody could write it, here and there with what is none.
#[derive(Arbitrary, Debug)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    Number(i64),
    Text(Text<'a>),
    List(Vec<Json<'a>>),
    /// Names may stand in it twice, and escaped.
    Object(Vec<(Name, bool, Json<'a>)>),
    Raw(&'a [u8]),
}

impl Json<'_> {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Json::Null => out.extend(b"null"),
            Json::Bool(value) => out.extend(value.to_string().bytes()),
            Json::Number(value) => out.extend(value.to_string().bytes()),
            Json::Text(text) => out.extend(json!(text.get()).to_string().bytes()),
            Json::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    out.extend((index > 0).then_some(b','));
                    item.write(out);
                }
                out.push(b']');
            }
            Json::Object(members) => {
                out.push(b'{');
                for (index, (name, escaped, value)) in members.iter().enumerate() {
                    out.extend((index > 0).then_some(b','));
                    out.extend(name.written(*escaped).bytes());
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
            Json::Raw(bytes) => out.extend(*bytes),
        }
    }
}
