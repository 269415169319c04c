//! What of a condition is the same for every event: worked out once, so that a mistake in it is told
//! at load, in its place.
//!
//! Nothing with a loop in it is worked out: that could take long.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
};

use cel::{
    Context, ExecutionError, IdedExpr,
    common::{
        ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
        types::CelBool,
    },
};

use super::{LIBRARY, Why};

/// Some time, to try a zone on.
static SOME_TIME: LazyLock<IdedExpr> = LazyLock::new(|| {
    let time = LIBRARY.parser().parse("timestamp('2000-01-01T00:00:00Z')");
    time.expect("this is CEL")
});

/// What fails whatever the event, as node and reason; nothing around it is named again.
pub fn failures(expression: &IdedExpr) -> Vec<(&IdedExpr, Why)> {
    let mut failures = Vec::new();
    if known(expression, &mut failures) == Known::Fixed
        && let Ok(Err(kind)) = value(expression)
    {
        failures.push((expression, Why::NotBoolean(kind)));
    }
    failures
}

/// Whether an expression is certainly never true.
pub fn is_never(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => {
            call.args.iter().any(is_never)
        }
        Expr::Call(call) if call.func_name == operators::LOGICAL_OR => {
            call.args.iter().all(is_never)
        }
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => {
            call.args.iter().skip(1).all(is_never)
        }
        _ => {
            known(expression, &mut Vec::new()) == Known::Fixed && value(expression) == Ok(Ok(false))
        }
    }
}

/// What is known of a value before any event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// All of it.
    Fixed,
    /// It depends on the event, or on a loop.
    Varies,
    /// There will never be one.
    Fails,
}

fn known<'n>(node: &'n IdedExpr, failures: &mut Vec<(&'n IdedExpr, Why)>) -> Known {
    let parts = parts(&node.expr).into_iter().map(|part| known(part, failures)).max();
    let fails = match (&node.expr, parts) {
        (Expr::Ident(_) | Expr::Comprehension(_) | Expr::Struct(_), _) => return Known::Varies,
        (Expr::Literal(_) | Expr::List(_) | Expr::Unspecified, None | Some(Known::Fixed)) => None,
        (_, None | Some(Known::Fixed)) => value(node).err(),
        (expression, Some(Known::Varies)) => match zone_of(expression) {
            None => return Known::Varies,
            Some(zone) => match value(&zone) {
                Ok(_) => return Known::Varies,
                Err(why) => Some(why),
            },
        },
        (_, Some(Known::Fails)) => return Known::Fails,
    };
    match fails {
        None => Known::Fixed,
        Some(why) => {
            failures.push((node, why));
            Known::Fails
        }
    }
}

fn parts(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => Vec::new(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => {
            let entries = map.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
                EntryExpr::StructField(field) => vec![&field.value],
            });
            entries.flatten().collect()
        }
        Expr::Comprehension(parts) => {
            vec![
                &parts.iter_range,
                &parts.accu_init,
                &parts.loop_cond,
                &parts.loop_step,
                &parts.result,
            ]
        }
    }
}

/// `time.getHours('Europe/Berlin')` of some time: whether there is such a zone does not depend on the
/// event.
fn zone_of(expression: &Expr) -> Option<IdedExpr> {
    let Expr::Call(call) = expression else { return None };
    let [IdedExpr { expr: Expr::Literal(LiteralValue::String(_)), .. }] = &call.args[..] else {
        return None;
    };
    call.func_name.starts_with("get").then(|| {
        let target = Some(Box::new(SOME_TIME.clone()));
        IdedExpr { expr: Expr::Call(CallExpr { target, ..call.clone() }), ..Default::default() }
    })
}

/// The value of what is fixed, if it is a verdict; else of which type it is.
fn value(node: &IdedExpr) -> Result<Result<bool, String>, Why> {
    let work_out = || -> Result<Result<bool, String>, ExecutionError> {
        let context = Context::with_env(LIBRARY.clone());
        let value = cel::Value::resolve_val(node, &context)?;
        let verdict = value.downcast_ref::<CelBool>().map(|verdict| *verdict.inner());
        Ok(verdict.ok_or_else(|| value.get_type().name().to_owned()))
    };
    match catch_unwind(AssertUnwindSafe(work_out)) {
        Ok(outcome) => outcome.map_err(Why::from),
        Err(_) => Err(Why::Panicked),
    }
}
