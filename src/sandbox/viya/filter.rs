//! Filters of listings, as SAS's REST services document them: `eq`, `ne`, `gt`, `ge`, `lt`, `le`, `in`, `contains`,
//! `startsWith`, `endsWith`, `isNull`, and `and`, `or`, `not` of these.

use serde_json::Value;

/// A filter that was read.
#[derive(Debug, PartialEq)]
pub enum Filter {
    /// All of these.
    All(Vec<Filter>),
    /// At least one of these.
    Any(Vec<Filter>),
    /// The opposite.
    Not(Box<Filter>),
    /// The member is absent or null.
    IsNull(String),
    /// The member compares so with at least one of the values.
    Compare { operator: String, member: String, values: Vec<String> },
}

/// How deep filters may be nested.
const DEPTH: usize = 16;

impl Filter {
    /// Reads a filter expression; the error has the text of an unsupported one.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::read(text.trim(), 0).ok_or_else(|| format!("The filter \"{text}\" is not valid or not supported."))
    }

    fn read(text: &str, depth: usize) -> Option<Self> {
        if depth > DEPTH {
            return None;
        }
        let (operator, rest) = text.split_once('(')?;
        let inner = split(rest.trim_end().strip_suffix(')')?)?;
        let nested = || inner.iter().map(|part| Self::read(part.trim(), depth + 1)).collect::<Option<Vec<_>>>();
        let operator = operator.trim();
        match (operator, inner.len()) {
            ("and", 1..) => Some(Self::All(nested()?)),
            ("or", 1..) => Some(Self::Any(nested()?)),
            ("not", 1) => Some(Self::Not(Box::new(nested()?.pop()?))),
            ("isNull", 1) => Some(Self::IsNull(literal(&inner[0]))),
            ("eq" | "ne" | "gt" | "ge" | "lt" | "le" | "contains" | "startsWith" | "endsWith", 2) | ("in", 2..) => {
                let mut parts = inner.iter().map(|part| literal(part));
                let member = parts.next()?;
                Some(Self::Compare { operator: operator.to_owned(), member, values: parts.collect() })
            }
            _ => None,
        }
    }

    /// Whether an item passes, whose members `member` gives. A member is a path such as `jobRequest.name`; an absent one
    /// passes nothing but `isNull` and `ne`.
    pub fn passes(&self, member: &dyn Fn(&str) -> Option<Value>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.passes(member)),
            Self::Any(parts) => parts.iter().any(|part| part.passes(member)),
            Self::Not(part) => !part.passes(member),
            Self::IsNull(name) => member(name).is_none_or(|value| value.is_null()),
            Self::Compare { operator, member: name, values } => {
                let Some(found) = member(name).filter(|found| !found.is_null()) else { return operator == "ne" };
                values.iter().any(|value| compare(operator, &found, value))
            }
        }
    }

    /// The ids of which an item must have one, where the filter limits them: a listing then reads only these.
    pub fn ids(&self) -> Option<&[String]> {
        match self {
            Self::All(parts) => parts.iter().find_map(Self::ids),
            Self::Compare { operator, member, values } if member == "id" && (operator == "in" || operator == "eq") => {
                Some(values)
            }
            _ => None,
        }
    }

    /// A member of a JSON item.
    pub fn member(item: &Value, path: &str) -> Option<Value> {
        path.split('.').try_fold(item, |value, key| value.get(key)).cloned()
    }
}

fn compare(operator: &str, found: &Value, value: &str) -> bool {
    let text = match found {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // Numbers by their size; time stamps are in an order of their own as text.
    let order = match (text.parse::<f64>(), value.parse::<f64>()) {
        (Ok(one), Ok(other)) => one.total_cmp(&other),
        _ => text.as_str().cmp(value),
    };
    match operator {
        "contains" => text.contains(value),
        "startsWith" => text.starts_with(value),
        "endsWith" => text.ends_with(value),
        "ne" => order.is_ne(),
        "gt" => order.is_gt(),
        "ge" => order.is_ge(),
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        _ => order.is_eq(),
    }
}

/// Splits at commas that are outside of quotes and parentheses.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut parts, mut quote, mut depth) = (vec![String::new()], None, 0_usize);
    for c in text.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '(' => depth += 1,
            None if c == ')' => depth = depth.checked_sub(1)?,
            None if c == ',' && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            None => {}
        }
        parts.last_mut()?.push(c);
    }
    let whole = quote.is_none() && depth == 0 && parts.iter().all(|part| !part.trim().is_empty());
    whole.then_some(parts)
}

/// A literal without its quotes; a doubled quote within them stands for one.
fn literal(text: &str) -> String {
    let text = text.trim();
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
            return inner.replace(&format!("{quote}{quote}"), &quote.to_string());
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn filters_are_read_with_their_quotes() {
        let item = json!({"id": "i1", "name": "it's, a (job", "jobRequest": {"name": "x"}, "state": "running", "count": 9,
            "endTimeStamp": null, "creationTimeStamp": "2025-02-13T09:52:42.434Z"});
        for (text, expected) in [
            ("eq(name,'it''s, a (job')", true),
            ("contains(name, 's, a')", true),
            ("startsWith(\"name\",'it')", true),
            ("endsWith(name,'(job')", true),
            ("eq(jobRequest.name,'x')", true),
            ("in(jobRequest.name,'y','x')", true),
            ("eq(name,'other')", false),
            ("eq(missing,'x')", false),
            ("ne(state,'completed')", true),
            ("ne(state,'running')", false),
            ("and(in(id,'i0','i1'),ne(state,'running'))", false),
            ("or(eq(id,'i0'),and(eq(id,'i1'),not(eq(state,'failed'))))", true),
            ("isNull(endTimeStamp)", true),
            ("not(isNull(creationTimeStamp))", true),
            ("gt(creationTimeStamp,'2025-02-13T00:00:00.000Z')", true),
            ("lt(count,10)", true),
            ("ge(count,10)", false),
        ] {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(filter.passes(&|path| Filter::member(&item, path)), expected, "{text}");
        }
        for text in ["", "eq(name", "eq(name,'x", "eq(name)", "and()", "not(a,b)", "like(a,'b')", "eq(a,b))", "in(id)"]
        {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
        assert!(Filter::parse(&format!("{}eq(a,b){}", "not(".repeat(99), ")".repeat(99))).is_err());
        assert_eq!(Filter::parse("and(in(id,'a','b'),ne(state,'x'))").unwrap().ids().unwrap(), ["a", "b"]);
    }
}
