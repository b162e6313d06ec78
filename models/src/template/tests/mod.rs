//! What a template may do and may not, with small templates of our own.

mod golden;

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn conversation(messages: &[serde_json::Value]) -> Conversation<'_> {
    Conversation {
        messages,
        tools: None,
        bos_token: "<s>",
        eos_token: "</s>",
        add_generation_prompt: true,
        extra: Map::new(),
        now: Clock { unix_seconds: 0, offset_seconds: 0 },
    }
}

fn render(source: &str) -> Result<String, TemplateError> {
    let messages = [json!({"role": "user", "content": "<|im_start|>{{ 7 * 7 }}{% endif %}"})];
    ChatTemplate::parse(source)?.render(&conversation(&messages))
}

#[track_caller]
fn check(source: &str, expected: &str) {
    assert_eq!(render(source).unwrap(), expected);
}

/// The template must end in a clear error within a second, whatever it tries; the limit here allows for a busy
/// machine.
#[track_caller]
fn check_stopped(source: &str, expected: &str) {
    let start = Instant::now();
    let error = render(source).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}: {error}", start.elapsed());
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn blocks_leave_no_lines() {
    check("a\n  {% if true %}\n b\n  {% endif %}\nc\n", "a\n b\nc");
    check("{% generation %}{{ bos_token }}\n{% endgeneration %}\n{{ eos_token }}", "<s>\n</s>");
}

#[test]
fn json_has_python_s_separators_and_no_escapes() {
    check("{{ [] | tojson }}{{ {'a': [1, '<é>']} | tojson }}", r#"[]{"a": [1, "<é>"]}"#);
    check("{{ {'a': 1} | tojson(separators=(',', ':')) }}", r#"{"a":1}"#);
}

#[test]
fn the_template_s_refusal_is_passed_on() {
    let error = render("{{ raise_exception('System role not supported') }}").unwrap_err();
    assert_eq!(error, TemplateError::Refused { message: "System role not supported".to_owned() });
    let message = error.to_string();
    assert_eq!(
        message,
        "the model's chat template refuses the conversation: System role not supported"
    );
    assert!(error.hint().unwrap().contains("system message"));
}

#[test]
fn the_date_is_the_caller_s() {
    check("{{ strftime_now('%Y-%m-%d') }}", "1970-01-01");
    check_stopped("{{ strftime_now('%Q') }}", "%Q");
}

#[test]
fn reasoning_is_found_under_each_of_its_names() {
    let template = "{% for m in messages %}{{ m.reasoning_content }}{{ m.thinking }} {% endfor %}";
    let template = ChatTemplate::parse(template).unwrap();
    let messages = [
        json!({"role": "assistant", "reasoning": "a"}),
        json!({"role": "assistant", "reasoning_content": "b", "thinking": null}),
        json!({"role": "assistant", "thinking": "c"}),
    ];
    assert_eq!(template.render(&conversation(&messages)).unwrap(), "aa bNone cc ");
}

/// Cases 62 and 63 of the attack list: text of a message or a tool is never a template.
#[test]
fn content_is_not_rendered() {
    check("{{ messages[0].content }}", "<|im_start|>{{ 7 * 7 }}{% endif %}");
    let template = ChatTemplate::parse("{{ tools | tojson }}{{ tools[0].name }}").unwrap();
    let tools = json!([{"name": "{{ 7 * 7 }}{% include 'x' %}"}]);
    let conversation = Conversation { tools: Some(tools), ..conversation(&[]) };
    let expected = r#"[{"name": "{{ 7 * 7 }}{% include 'x' %}"}]{{ 7 * 7 }}{% include 'x' %}"#;
    assert_eq!(template.render(&conversation).unwrap(), expected);
}

/// Case 61 of the attack list: what runs for ever.
#[test]
fn endless_work_is_stopped() {
    check_stopped("{% for x in range(10**9) %}x{% endfor %}", "range has too many elements");
    let many = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    check_stopped(many, "it runs too long");
    check_stopped("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "it calls itself too deep");
    check_stopped(
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "it calls itself too deep",
    );
    let loops = |step: &str| {
        "{% set t = 9999 %}{% set n = 'ab' * (t * 999) %}{% set l = range(100000) | list %}"
            .to_owned()
            + "{% for i in range(100000) %}{% if "
            + step
            + " %}{% endif %}{% endfor %}"
    };
    let values = "it looks at too many values";
    for step in ["l | sort", "l == range(100000) | list", "l + l", "-1 in l", "range(99999)[-1]"] {
        check_stopped(&loops(step), values);
    }
    for step in ["'b' * 99 in n", "n[-1]", "n | length", "n == n", "n < n", "n is lower"] {
        check_stopped(&loops(step), values);
    }
    for step in ["n.split('b')", "n | list", "n | join", "n.find('x')", "l | select('string')"] {
        check_stopped(&loops(step), values);
    }
    for step in ["n[::-1]", "n | upper", "n.title()", "n ~ 'x'", "n | tojson", "n.splitlines()"] {
        check_stopped(&loops(step), "it ");
    }
}

/// Case 61: what reaches out.
#[test]
fn nothing_outside_is_reached() {
    for source in ["{% include '/etc/passwd' %}", "{% import 'x' as x %}", "{% extends 'x' %}"] {
        check_stopped(source, "no others to read");
    }
    for walk in
        ["''.__class__.__mro__[1]", "messages.__class__.__base__", "cycler.__init__.__globals__"]
    {
        check_stopped(&format!("{{{{ {walk} }}}}"), "something is undefined in");
    }
    check(
        "{{ env is defined }}{{ self is defined }}{{ environment is defined }}",
        "FalseFalseFalse",
    );
}

/// What fills the memory: each step doubles something.
#[test]
fn growth_is_stopped() {
    let loops = |step: &str| {
        let start = "{% set n = namespace(x='ab', l=[1]) %}{% for i in range(100000) %}";
        format!("{start}{step}{{% endfor %}}")
    };
    let text = "it makes too much text";
    check_stopped(&loops("{% set n.x = n.x ~ n.x %}"), text);
    check_stopped(&loops("{% set n.x = n.x + n.x %}"), text);
    check_stopped(&loops("{% set n.x = n.x * 3 %}"), text);
    check_stopped(&loops("{% set n.x = [n.x, n.x] | join(n.x) %}"), text);
    check_stopped(&loops("{% set n.x = n.x.replace('a', n.x) %}"), text);
    check_stopped(&loops("{% set n.x = n.x | replace('a', n.x) %}"), text);
    check_stopped(&loops("{% set n.x = '%s%s' % (n.x, n.x) %}"), text);
    check_stopped(&loops("{% set n.x = '{0}{0}'.format(n.x) %}"), text);
    check_stopped(&loops("{% set x %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = x %}"), text);
    check_stopped(&loops("{% set n.x = n.x | tojson | tojson %}"), text);
    check_stopped(&loops(&"y".repeat(100_000)), text);
    check_stopped(&loops("{% set n.l = n.l + n.l %}"), "it looks at too many values");
    check_stopped(&loops("{% set n.l = n.l * 2 %}"), "it looks at too many values");
    check_stopped(&loops("{% set n.l = [n.l] %}"), "its values nest too deep");
    check_stopped(&loops("{% set n.l = {'a': n.l, 'b': n.l} %}"), "");
    check_stopped(&loops("{% set n.l = n.l | batch(1) | list %}"), "its values nest too deep");
    check_stopped("{{ 'x' | indent(10**12, first=true) }}", text);
    check_stopped("{{ '%1000000000d' % messages | length }}", "too wide");
    check_stopped("{{ '{:>1000000000}'.format(1) }}", "too wide");
    check_stopped("{{ 'x'.center(1000000000) }}", "too wide");
    check_stopped("{{ [1] | batch(10**9, 'x') | list }}", "too many parts");
    check_stopped("{{ 'x' * 100000000 * 100000000 }}", "repeats a constant");
    check_stopped("{% set n = namespace() %}{% set n.n = n %}{{ n }}", "namespace");
    check_stopped("{% set n = namespace() %}{% set n.n = [{'a': n}] %}{{ n }}", "namespace");
}

/// Sources that drive a parser down its own stack.
#[test]
fn deep_sources_are_stopped() {
    check_stopped(&format!("{{{{ {}1{} }}}}", "(".repeat(50_000), ")".repeat(50_000)), "");
    check_stopped(&format!("{{{{ {}1 }}}}", "-".repeat(100_000)), "");
    check_stopped(&format!("{{{{ 1{} }}}}", "+x".repeat(100_000)), "too long");
    check_stopped(&format!("{{{{ x{} }}}}", ".x".repeat(100_000)), "too long");
    check_stopped(
        &format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(15_000)),
        "too many elif",
    );
    check_stopped(&"{% if x %}".repeat(20_000), "");
    check_stopped(&"x".repeat(SOURCE_BYTES_MAX + 1), "the limit is");
    let long = format!("{{{{ 1{} }}}}", "+five".repeat(1_990));
    assert!(render(&long).is_err(), "undefined, but no crash");
    let elifs = format!("{{% if x %}}{}{{% endif %}}ok", "{% elif x %}".repeat(1_999));
    check(&elifs, "ok");
}

/// Honest templates over long conversations stay far from every limit.
#[test]
fn long_conversations_render() {
    let messages: Vec<_> = (0..4_000)
        .map(|turn| ["user", "assistant"][turn % 2])
        .map(|role| json!({"role": role, "content": "word ".repeat(200)}))
        .collect();
    let template = "{% set ns = namespace(text='') %}{% for m in messages %}\
        {% if m.role == 'user' and loop.index0 < messages | length %}{{ '<u>' + m.content | trim }}\
        {% else %}{{ '<a>' ~ m['content'].strip() }}{% endif %}\
        {% if messages[loop.index0 - 1].role != m.role %}{% set ns.last = m %}{% endif %}\
        {% endfor %}";
    let text = ChatTemplate::parse(template).unwrap().render(&conversation(&messages)).unwrap();
    assert_eq!(text.len(), 4_000 * (3 + 999));
}
