//! The line with which Claude Code begins its instructions, which changes with every request.
//!
//! It looks like `x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch=a5145;`, says nothing to a
//! model, and would keep the beginning of the prompt from ever being found in the cache.

const NAME: &str = "x-anthropic-billing-header:";

/// The instructions without that line.
pub(super) fn without(text: &str) -> &str {
    let Some(mut rest) = text.strip_prefix(NAME) else { return text };
    // Pairs of a name and a value, each with a semicolon at its end. What follows them is meant for the model.
    while let Some(after) = pair(rest) {
        rest = after;
    }
    rest.trim_start_matches([' ', '\n', '\r'])
}

/// What follows the pair at the beginning of a text; None when there is no pair.
fn pair(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(' ');
    let (name, rest) = text.split_once('=')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let end = rest.find([';', '\n'])?;
    rest[..end].chars().all(|c| !c.is_whitespace()).then(|| rest[end..].trim_start_matches(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_goes() {
        let line =
            "x-anthropic-billing-header: cc_version=2.1.101.e51; cc_entrypoint=cli; cch=a5145;";
        assert_eq!(without(line), "");
        assert_eq!(without(&format!("{line}You are Claude; a=b; c.")), "You are Claude; a=b; c.");
        assert_eq!(without(&format!("{line}\nYou are")), "You are");
        assert_eq!(
            without("You are x-anthropic-billing-header: cch=1;"),
            "You are x-anthropic-billing-header: cch=1;"
        );
        assert_eq!(without("x-anthropic-billing-header: cch=a b; c"), "cch=a b; c");
    }
}
