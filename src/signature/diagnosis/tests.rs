use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use secrecy::SecretString;

use super::*;
use crate::signature::{Key as Mac, tests::vectors};

const NOW: u64 = 1_767_225_600;
const PLAIN: &str = "whsec_c2Vjb25kIHNlY3JldA==";
const BODY: &[u8] =
    "{\"a\":{\"text\":\"おはよう a/b\",\"n\":1.0},\"list\":[],\"b\":[1,{}]}".as_bytes();

type Diagnose = fn(&[&SecretString], &HeaderMap, &[u8]) -> Diagnosis;

const SCHEMES: [Diagnose; 3] = [sonzai::diagnose, miibo::diagnose, standard::diagnose];

fn headers(given: &[(&str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn of(diagnose: Diagnose, given: &[(&str, String)], body: &[u8]) -> Diagnosis {
    let secrets = ["whsec_another b3RoZXI=", PLAIN].map(SecretString::from);
    diagnose(&[&secrets[0], &secrets[1]], &headers(given), body)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    Mac::new(key).unwrap().mac(parts)
}

fn hex(key: &[u8], parts: &[&[u8]]) -> String {
    const_hex::encode(hmac(key, parts))
}

fn base64(key: &[u8], parts: &[&[u8]]) -> String {
    general_purpose::STANDARD.encode(hmac(key, parts))
}

fn codes(mistakes: &[Mistake]) -> Vec<&'static str> {
    mistakes.iter().map(Mistake::code).collect()
}

/// The second secret fits with these mistakes, and the headers have these faults.
#[track_caller]
fn assert_fits(diagnosis: &Diagnosis, mistakes: &[&str], faults: &[&str]) {
    let fit = diagnosis.fit.as_ref().unwrap_or_else(|| panic!("{mistakes:?}: {diagnosis:?}"));
    assert_eq!((fit.secret, &*codes(&fit.mistakes)), (1, mistakes), "{diagnosis:?}");
    assert_eq!(codes(&diagnosis.faults), faults, "{diagnosis:?}");
}

#[test]
fn every_usual_mistake_with_a_sonzai_signature_is_named() {
    let text = PLAIN.strip_prefix("whsec_").unwrap();
    let bytes = general_purpose::STANDARD.decode(text).unwrap();
    let (key, dotted, t) = (text.as_bytes(), format!("{NOW}."), NOW.to_string());
    let signed = [dotted.as_bytes(), BODY];
    let right = hex(key, &signed);
    let header = |v1: &str| format!("t={NOW},v1={v1}");
    let milliseconds = format!("{NOW}123");
    let in_milliseconds = hex(key, &[milliseconds.as_bytes(), b".", BODY]);
    for (header, mistakes, faults) in [
        (header(&right), &[][..], &[][..]),
        (header(&right.to_uppercase()), &[], &[]),
        (format!("{},v1=zz", header(&right)), &[], &[]),
        (header(&hex(PLAIN.as_bytes(), &signed)), &["key-with-prefix"], &[]),
        (header(&hex(&bytes, &signed)), &["key-decoded"], &[]),
        (header(&hex(format!("{text}\n").as_bytes(), &signed)), &["key-with-newline"], &[]),
        (header(&hex(key, &[BODY])), &["signed-text"], &[]),
        (header(&hex(key, &[t.as_bytes(), BODY])), &["signed-text"], &[]),
        (header(&base64(key, &signed)), &["signature-encoding"], &[]),
        (header(&format!("sha256={right}")), &["signature-labelled"], &[]),
        (format!("t={NOW},{right}"), &["signature-unlabelled"], &[]),
        (hex(key, &[BODY]), &["signature-unlabelled", "signed-text"], &["timestamp-missing"]),
        (format!("t={milliseconds},v1={in_milliseconds}"), &[], &["timestamp-unit"]),
        (format!("t={NOW},t={NOW},v1={right}"), &[], &["header-repeated"]),
    ] {
        assert_fits(&of(sonzai::diagnose, &[("sonzai-signature", header)], BODY), mistakes, faults);
    }
    let old = of(sonzai::diagnose, &[("x-sonzai-signature", header(&right))], BODY);
    assert_fits(&old, &[], &["header-name"]);
    assert_eq!(old.claim.timestamp_s, Some(NOW));
}

#[test]
fn every_usual_mistake_with_a_miibo_signature_is_named() {
    let (key, text) = (PLAIN.as_bytes(), PLAIN.strip_prefix("whsec_").unwrap());
    for (header, mistakes) in [
        (hex(key, &[BODY]), &[][..]),
        (hex(text.as_bytes(), &[BODY]), &["key-without-prefix"]),
        (hex(format!("{PLAIN}\n").as_bytes(), &[BODY]), &["key-with-newline"]),
        (base64(key, &[BODY]), &["signature-encoding"]),
        (format!("sha256={}", hex(key, &[BODY])), &["signature-labelled"]),
    ] {
        assert_fits(&of(miibo::diagnose, &[("x-hmac", header)], BODY), mistakes, &[]);
    }
}

#[test]
fn every_usual_mistake_with_a_standard_signature_is_named() {
    let text = PLAIN.strip_prefix("whsec_").unwrap();
    let key = &*general_purpose::STANDARD.decode(text).unwrap();
    let (t, signed) = (NOW.to_string(), format!("m.{NOW}."));
    let signed = [signed.as_bytes(), BODY];
    let right = base64(key, &signed);
    let url = general_purpose::URL_SAFE_NO_PAD.encode(hmac(key, &signed));
    for (list, mistakes) in [
        (format!("v1,{right}"), &[][..]),
        (format!("v1,AAAA v1,{right}"), &[]),
        (format!("v1,{}", base64(text.as_bytes(), &signed)), &["key-as-text"]),
        (format!("v1,{}", base64(PLAIN.as_bytes(), &signed)), &["key-with-prefix"]),
        (format!("v1,{}", base64(key, &[BODY])), &["signed-text"]),
        (format!("v1,{}", base64(key, &[t.as_bytes(), b".", BODY])), &["signed-text"]),
        (format!("v1,{}", base64(key, &[b"m.", BODY])), &["signed-text"]),
        (format!("v1,{}", hex(key, &signed)), &["signature-encoding"]),
        (format!("v1,{url}"), &["signature-encoding"]),
        (format!("v1={right}"), &["signature-unlabelled"]),
        (right.clone(), &["signature-unlabelled"]),
    ] {
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let [id, time, signature] = names;
        let given = [(id, "m".to_owned()), (time, t.clone()), (signature, list)];
        assert_fits(&of(standard::diagnose, &given, BODY), mistakes, &[]);
        let mixed = [("svix-id", "m".to_owned()), given[1].clone(), given[2].clone()];
        assert!(codes(&of(standard::diagnose, &mixed, BODY).faults).contains(&"header-families"));
    }
}

/// What happens to bodies is tried with every scheme alike.
#[test]
fn a_body_that_was_changed_on_its_way_is_named() {
    let text = std::str::from_utf8(BODY).unwrap();
    let python = "{\"a\": {\"text\": \"\\u304a\\u306f\\u3088\\u3046 a/b\", \"n\": 1.0}, \"list\": [], \"b\": [1, {}]}";
    let indented = "{\n  \"a\": {\n    \"text\": \"おはよう a/b\",\n    \"n\": 1.0\n  },\n  \"list\": [],\n  \
                    \"b\": [\n    1,\n    {}\n  ]\n}";
    let php = "{\"a\":{\"text\":\"\\u304a\\u306f\\u3088\\u3046 a\\/b\",\"n\":1.0},\"list\":[],\"b\":[1,{}]}";
    let encoded = general_purpose::STANDARD.encode(text);
    for (signed, arrived, mistake) in [
        (text, &*format!("{text}\n"), "body-newline-added"),
        (text, &*format!("{text}\r\n"), "body-newline-added"),
        (text, &*format!("{text}\n\n"), "body-newline-added"),
        (&*format!("{text}\n"), text, "body-newline-removed"),
        ("a\nb", "a\r\nb", "body-line-ends"),
        ("a\r\nb\r\n", "a\nb\n", "body-line-ends"),
        ("\u{feff}{}", "{}", "body-mark-removed"),
        (text, &*encoded, "body-encoded"),
        (text, python, "body-reserialised"),
        (text, indented, "body-reserialised"),
        (python, text, "body-reserialised"),
        (python, indented, "body-reserialised"),
        (indented, python, "body-reserialised"),
        (php, text, "body-reserialised"),
        (text, php, "body-reserialised"),
    ] {
        let signature = hex(PLAIN.as_bytes(), &[signed.as_bytes()]);
        let diagnosis = of(miibo::diagnose, &[("x-hmac", signature)], arrived.as_bytes());
        assert_fits(&diagnosis, &[mistake], &[]);
    }
    // Two at a time.
    let rest = PLAIN.strip_prefix("whsec_").unwrap();
    let signature = hex(rest.as_bytes(), &[python.as_bytes()]);
    let diagnosis = of(miibo::diagnose, &[("x-hmac", signature)], BODY);
    assert_fits(&diagnosis, &["key-without-prefix", "body-reserialised"], &[]);
}

#[test]
fn base64_that_begins_like_a_label_is_base64() {
    let begins = |n: &u32| base64(b"k", &[&n.to_le_bytes()]).starts_with("0x");
    let text = base64(b"k", &[&(0..).find(begins).expect("one of 4096").to_le_bytes()]);
    let read = decode::<32>(&text, Encoding::Base64).expect("32 bytes");
    assert_eq!(read.mistakes, []);
    let labelled = format!("0x{}", hex(b"k", &[BODY]));
    let read = decode::<32>(&labelled, Encoding::Hex).expect("32 bytes");
    assert_eq!(read.mistakes, [Mistake::Labelled("0x")]);
}

#[test]
fn a_header_that_is_missing_or_holds_no_signature_is_named() {
    let hub = ("x-hub-signature-256", format!("sha256={}", hex(b"k", &[BODY])));
    let sonzai = |value: &str| ("sonzai-signature", value.to_owned());
    let sha512 = format!("t=1,v1={}", "ab".repeat(64));
    for (diagnose, given, faults) in [
        (SCHEMES[0], vec![], &["header-missing"][..]),
        (SCHEMES[0], vec![hub.clone()], &["header-missing"]),
        (SCHEMES[0], vec![sonzai("")], &["timestamp-missing", "no-signature"]),
        (SCHEMES[0], vec![sonzai("t=1,v1=")], &["no-signature"]),
        (SCHEMES[0], vec![sonzai("t=1,v1=zz")], &["signature-undecodable"]),
        (SCHEMES[0], vec![sonzai(&sha512)], &["signature-undecodable"]),
        (
            SCHEMES[0],
            vec![sonzai("t=2026-01-01T00:00:00Z,v1=")],
            &["no-signature", "timestamp-form"],
        ),
        (SCHEMES[1], vec![], &["header-missing"]),
        (SCHEMES[1], vec![("x-hmac", String::new())], &["no-signature"]),
        (SCHEMES[1], vec![("x-hmac", "zz".to_owned())], &["signature-undecodable"]),
        (SCHEMES[2], vec![], &["header-missing"; 3]),
        (
            SCHEMES[2],
            vec![
                ("webhook-id", "m.1".to_owned()),
                ("webhook-timestamp", "soon".to_owned()),
                ("webhook-signature", "v2,AAAA".to_owned()),
            ],
            &["id-unusable", "timestamp-form", "no-signature"],
        ),
    ] {
        let diagnosis = of(diagnose, &given, BODY);
        assert_eq!(
            (codes(&diagnosis.faults), &diagnosis.fit),
            (faults.to_vec(), &None),
            "{given:?}"
        );
    }
    let named = of(SCHEMES[0], &[hub], BODY).faults[0].to_string();
    assert!(named.contains("`x-hub-signature-256`"), "{named}");
}

#[test]
fn a_body_that_would_grow_without_bound_is_left_as_it_is() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let readings = body::readings(deep.as_bytes());
    assert!(readings.iter().all(|reading| reading.value.len() <= 5 * deep.len()));
}

#[test]
fn what_is_right_fits_without_a_mistake_and_what_is_not_does_not() {
    for case in vectors().cases {
        let given: Vec<_> = case.headers.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        let diagnose = match case.scheme.as_str() {
            "sonzai" => sonzai::diagnose,
            "miibo" => miibo::diagnose,
            _ => standard::diagnose as Diagnose,
        };
        let secrets: Vec<SecretString> = case.secrets.into_iter().map(Into::into).collect();
        let secrets: Vec<&SecretString> = secrets.iter().collect();
        let diagnosis = diagnose(&secrets, &headers(&given), case.body.as_bytes());
        let fits = diagnosis.fit.is_some_and(|fit| fit.mistakes.is_empty());
        let right = fits && diagnosis.faults.is_empty();
        assert_eq!(right, ["ok", "expired"].contains(&&*case.expect), "{}", case.name);
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_or_finds_a_fit_by_chance(
        name in prop::sample::select(vec![
            "sonzai-signature", "x-sonzai-signature", "x-hmac", "webhook-id", "svix-id",
            "webhook-timestamp", "webhook-signature", "svix-signature",
        ]),
        value in "(t=|v1,|v1a,|sha256=|0x)?[ -~]{0,120}",
        body in prop_oneof!["\\PC{0,60}", "[\\[\\]{},:\"\\\\ a0-]{0,40}"],
    ) {
        for diagnose in SCHEMES {
            prop_assert_eq!(of(diagnose, &[(name, value.clone())], body.as_bytes()).fit, None);
        }
    }
}
