//! JSON as CEL values. Text without escapes is borrowed from the body.

use std::{borrow::Cow, collections::HashMap, fmt};

use cel::common::{
    types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
    value::Val,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// A value of CEL's that may borrow from an event.
pub type Value<'e> = Box<dyn Val + 'e>;

/// Reads one JSON value. The error says what CEL cannot take: a number beyond a double, text that is
/// not Unicode, nesting over 127.
pub fn read(json: &str) -> Result<Value<'_>, serde_json::Error> {
    serde_json::from_str(json).map(|Json(value)| value)
}

/// A map of texts; of equal names the first counts.
pub fn map<'e>(pairs: impl Iterator<Item = (&'e str, &'e str)>) -> Value<'e> {
    let mut map: HashMap<CelMapKey<'e>, Value<'e>> = HashMap::new();
    for (name, text) in pairs {
        map.entry(CelMapKey::from(name)).or_insert_with(|| Box::new(CelString::from(text)));
    }
    Box::new(CelMap::from(map))
}

struct Json<'e>(Value<'e>);

impl<'e> Json<'e> {
    fn of(value: impl Val + 'e) -> Json<'e> {
        Json(Box::new(value))
    }
}

impl<'e> Deserialize<'e> for Json<'e> {
    fn deserialize<D: Deserializer<'e>>(json: D) -> Result<Json<'e>, D::Error> {
        json.deserialize_any(Any)
    }
}

struct Any;

impl<'e> Visitor<'e> for Any {
    type Value = Json<'e>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'e>, E> {
        Ok(Json::of(CelNull))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'e>, E> {
        Ok(Json::of(CelBool::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'e>, E> {
        Ok(Json::of(CelInt::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'e>, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Json::of(CelInt::from(value)),
            Err(_) => Json::of(CelUInt::from(value)),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'e>, E> {
        Ok(Json::of(CelDouble::from(value)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'e>, E> {
        Ok(Json::of(CelString::from(text.to_owned())))
    }

    fn visit_borrowed_str<E>(self, text: &'e str) -> Result<Json<'e>, E> {
        Ok(Json::of(CelString::from(text)))
    }

    fn visit_seq<A: SeqAccess<'e>>(self, mut items: A) -> Result<Json<'e>, A::Error> {
        let mut list: Vec<Value<'e>> = Vec::new();
        while let Some(Json(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::of(CelList::from(list)))
    }

    fn visit_map<A: MapAccess<'e>>(self, mut members: A) -> Result<Json<'e>, A::Error> {
        let mut map: HashMap<CelMapKey<'e>, Value<'e>> = HashMap::new();
        while let Some((Name(name), Json(value))) = members.next_entry()? {
            let name = match name {
                Cow::Borrowed(name) => CelMapKey::from(name),
                Cow::Owned(name) => CelMapKey::from(name),
            };
            map.insert(name, value);
        }
        Ok(Json::of(CelMap::from(map)))
    }
}

/// A name in an object.
struct Name<'e>(Cow<'e, str>);

impl<'e> Deserialize<'e> for Name<'e> {
    fn deserialize<D: Deserializer<'e>>(json: D) -> Result<Name<'e>, D::Error> {
        struct Text;

        impl<'e> Visitor<'e> for Text {
            type Value = Name<'e>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Name<'e>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }

            fn visit_borrowed_str<E: Error>(self, text: &'e str) -> Result<Name<'e>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
        }

        json.deserialize_str(Text)
    }
}
