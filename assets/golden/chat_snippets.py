"""Makes chat_snippets.json: small templates of our own, and what transformers renders for each (null: it raises).

Runs in the environment of chat_templates.py: venv/bin/python chat_snippets.py
"""

import json
import pathlib

from chat_templates import freeze_clock
from transformers.utils import chat_template_utils

VARIABLES = {
    "text": "Zażółć 'gęślą' \"jaźń\"\n<b>&\\\t🦀",
    "words": ["b", "A", "c", "a", "B"],
    "numbers": [3, 1, 2.5, -4, 1e20, 1e-7, 0.1],
    "nested": {"b": [1, {"x": None, "y": True}], "a": "it's", "C": "\u00e9\n"},
    "people": [{"name": "Ola", "age": 3}, {"name": "Jan", "age": 1}, {"name": "ewa", "age": 2}],
    "empty": [],
    "nothing": None,
    "yes": True,
    "five": 5,
}

SNIPPETS = r"""
{{ nothing }}|{{ yes }}|{{ five }}|{{ 1.0 }}|{{ missing }}|
{{ missing is defined }}{{ nested.missing is defined }}{{ nested.missing }}
{{ missing.x }}
{{ nothing.x is defined }}{{ nothing['x'] }}
{{ words }} {{ nested }} {{ numbers }} {{ (1,) }} {{ (1, 'a') }} {{ [] }} {{ {} }} {{ () }}
{{ [text] }}
{{ ["it's", 'say "x"', "both ' and \""] }}
{{ text ~ five ~ nothing ~ yes ~ 1.5 ~ words ~ missing }}
{{ 'a' + 'b' + 'c' }}{{ 'a' 'b' }}
{{ 'a' + 1 }}
{{ 'a' + nothing }}
{{ 'a' + missing }}
{{ 1 + 2.5 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -7.5 % 2 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}
{{ 10 - 3 * 2 }} {{ -5 }} {{ -five }} {{ 2 * 'ab' }} {{ 'ab' * 2 }} {{ [1] * 3 }} {{ 'x' * -1 }}|
{{ [1] + [2, 3] }} {{ (1,) + (2,) }}
{{ [1] + (2,) }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ 'five: %d, %s, %05.1f, %x' % (5, 'x', 2.25, 255) }} {{ '%s' % 'a' }} {{ '%s %s' % ('a', words) }}
{{ '{} {1}'.format(1, 2) }}
{{ '{} {}'.format(1, 'x') }} {{ '{0}{0}'.format('a') }} {{ '{name:>5}|'.format(name='x') }}
{{ "%s and %s"|format("a", "b") }}
{{ words[0] }} {{ words[-1] }} {{ words[9] }}|{{ words[1:3] }} {{ words[::-1] }} {{ words[-2:] }} {{ words[:-1] }} {{ words[::2] }} {{ words[5:] }}
{{ text[0] }} {{ text[1:4] }} {{ text[::-1][0] }} {{ text[-1] }} {{ 'abc'[5:] }}|{{ 'abcdef'[1:5:2] }} {{ 'abc'[-10:2] }}
{{ nothing[1:] }}
{{ nested[1:] }}
{{ missing[1:] }}
{{ nested.a }} {{ nested['a'] }} {{ nested.b[1].y }} {{ nested['b'][1]['x'] }}
{{ nested.get('a') }} {{ nested.get('q') }} {{ nested.get('q', 7) }}
{{ nested.items() | list }} {{ nested.keys() | list }} {{ nested.values() | list }}
{% for k, v in nested.items() %}{{ k }}={{ v }};{% endfor %}
{% for k, v in nested|items %}{{ k }}={{ v }};{% endfor %}
{% for k, v in nested|dictsort %}{{ k }}={{ v }};{% endfor %}{% for k, v in nested|dictsort(true) %}{{ k }};{% endfor %}{% for k, v in {'a': 2, 'b': 1}|dictsort(by='value') %}{{ k }};{% endfor %}
{% for k in nested %}{{ k }};{% endfor %}{% for c in 'aé🦀' %}{{ c }};{% endfor %}{% for x in missing %}x{% else %}none{% endfor %}
{% for x in nothing %}x{% endfor %}
{% for x in five %}x{% endfor %}
{% for x in words %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('p', 'q') }} {% endfor %}
{% for x in words if x != 'c' %}{{ x }}{{ loop.index }}{% else %}-{% endfor %}{% for x in empty %}x{% else %}empty{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}
{% for a, b in [(1, 2), (3, 4)] %}{{ a }}-{{ b }} {% endfor %}{% for x in range(2, 10, 3) %}{{ x }} {% endfor %}{{ range(3) | list }}{{ range(5, 1, -2) | list }}
{% set x = 1 %}{% for i in range(3) %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(x=1, y='a') %}{% for i in range(3) %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z is defined }}
{% set ns = namespace() %}{% set ns._x = 1 %}{{ ns._x }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set (d, e) = (3, 4) %}{{ d }}
{% set x %}block {{ five }}{% endset %}{{ x }}{% set y | upper %}abc{% endset %}{{ y }}{% filter upper %}abc{{ five }}{% endfilter %}
{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=3) }} {{ m(a=5, b=6) }} {{ m() }}|{{ m.name }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro outer() %}[{{ caller('x') }}]{% endmacro %}{% call(v) outer() %}inner {{ v }}{% endcall %}
{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * (fact(n - 1) | int) }}{% endif %}{% endmacro %}{{ fact(6) }}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}
{% generation %}said{% set leaked = 1 %}{% endgeneration %}{{ leaked is defined }}|{%- generation -%} x {%- endgeneration -%} |
{% for x in [1, 2] %}{% generation %}{{ x }}{{ loop.index }}{% endgeneration %}{% endfor %}
{% raw %}{{ x }} {% generation %}{% endraw %}{# {% generation %} #}{{ "{% generation %}" }}
{{ '}}' }}{{ {'a': {'b': 1}}}}{{ "%}" }}{% if '%}' == "%}" %}ok{% endif %}
{% if words and not empty %}a{% endif %}{% if nothing or '' or 0 %}b{% elif 0.0 %}c{% else %}d{% endif %}{{ 'x' if empty }}|{{ 'x' if empty else 'y' }}
{{ words and five }} {{ nothing or 'd' }} {{ not missing }} {{ empty or nothing }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] == [1, 2] }} {{ (1,) == [1] }} {{ nested == nested }} {{ 1 == '1' }} {{ nothing == missing }} {{ true == 1 }} {{ [1, 2] < [1, 3] }}
{{ 1 < 'a' }}
{{ nothing < 1 }}
{{ missing < 1 }}
{{ 'a' in words }} {{ 'z' not in words }} {{ 'gęś' in text }} {{ 'a' in nested }} {{ 1 in (1, 2) }} {{ 'x' in missing }} {{ [1] in [[1]] }}
{{ 'a' in nothing }}
{{ 1 in 'a' }}
{{ 'a' in 5 }}
{{ words is sequence }}{{ text is sequence }}{{ nested is sequence }}{{ nothing is sequence }}{{ five is sequence }}{{ missing is sequence }}
{{ words is iterable }}{{ text is iterable }}{{ nested is iterable }}{{ nothing is iterable }}{{ five is iterable }}{{ missing is iterable }}
{{ nested is mapping }}{{ words is mapping }}{{ text is string }}{{ five is string }}{{ five is number }}{{ yes is number }}{{ yes is boolean }}{{ yes is integer }}{{ five is integer }}{{ 1.5 is float }}{{ five is odd }}{{ 4 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}
{{ yes is true }}{{ five is true }}{{ nothing is none }}{{ false is false }}{{ 'a' is lower }}{{ 'A' is upper }}{{ five is eq 5 }}{{ five is gt(3) }}{{ 1 is in [1] }}{{ five is sameas 5 }}{{ range is callable }}{{ five is callable }}{{ nothing is sameas none }}
{{ five is not none }} {{ five is defined and five is not string }} {{ not five is defined }}
{{ text | tojson }}
{{ nested | tojson }} {{ numbers | tojson }} {{ [] | tojson }} {{ {} | tojson }} {{ nothing | tojson }} {{ true | tojson }} {{ (1, 2) | tojson }}
{{ nested | tojson(indent=2) }}
{{ nested | tojson(indent=0) }}{{ [] | tojson(indent=2) }}{{ {'a': {}} | tojson(indent=4) }}
{{ nested | tojson(ensure_ascii=True) }} {{ text | tojson(true) }}
{{ nested | tojson(separators=(',', ':')) }} {{ nested | tojson(sort_keys=True) }} {{ nested | tojson(indent=1, separators=(';', '=')) }} {{ [1] | tojson(indent='--') }}
{{ {1: 2, none: 3, 1.5: 5} | tojson }}
{{ missing | tojson }}
{{ words | map('upper') | tojson }}
{{ words | map('upper') | length }}
{{ words | map('upper') | list }} {{ people | map(attribute='name') | join(', ') }} {{ people | map(attribute='q', default='-') | list }} {{ words | map('replace', 'a', 'z') | join }}
{{ people | selectattr('age', 'gt', 1) | map(attribute='name') | list }} {{ people | rejectattr('age', 'equalto', 1) | list | length }} {{ words | select('in', ['a', 'b']) | list }} {{ words | reject('equalto', 'a') | list }} {{ [0, 1, '', 'x'] | select | list }} {{ people | selectattr('name') | list | length }}
{{ nothing | selectattr('x') | list }} {{ nothing | map('upper') | list }}
{{ five | map('upper') | list }}
{{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ words | sort(reverse=true) }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ [3, 1, 2] | sort }}
{{ words | unique | list }} {{ words | unique(case_sensitive=true) | list }} {{ numbers | min }} {{ numbers | max }} {{ [1, 2, 3] | sum }} {{ people | sum(attribute='age') }} {{ words | first }} {{ words | last }} {{ empty | first }}|
{{ words | reverse | list }} {{ 'abc' | reverse }} {{ words | join }} {{ words | join('-') }} {{ [1, none, 'x'] | join(',') }} {{ people | join(',', attribute='name') }} {{ 'abc' | list }} {{ nested | list }}
{{ words | length }} {{ text | length }} {{ nested | count }} {{ missing | length }}
{{ five | length }}
{{ nothing | length }}
{{ missing | default('d') }} {{ '' | default('d') }}|{{ '' | default('d', true) }} {{ nothing | default('d') }} {{ nothing | d('d', boolean=true) }} {{ missing | default }}|{{ missing | default(default_value=3) }}
{{ '  a b  ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ five | trim }}|{{ nothing | trim }}|{{ missing | trim }}|
{{ 'aBc' | upper }} {{ 'aBc' | lower }} {{ 'aBC dE' | capitalize }} {{ five | string + 'x' }} {{ nothing | upper }} {{ 'a b' | title }}
{{ 'aXbXc' | replace('X', '-') }} {{ 'aXbXc' | replace('X', '-', 1) }} {{ 'abc' | replace('', '.') }} {{ five | replace(5, 6) }}
{{ 'a\nb\n\nc\n' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(2, blank=true) }}|{{ 'a\nb' | indent('> ') }}|{{ 'a\nb' | indent(width=3, first=true) }}|{{ '' | indent(2, true) }}|
{{ '12' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ 3.9 | int }} {{ '3.5' | float }} {{ 'ff' | int(0, 16) }} {{ 2.567 | round(1) }} {{ 2.5 | round }} {{ -3 | abs }} {{ 2.2 | round(0, 'ceil') }} {{ 'x' | float }}
{{ '<a> & "b"' | escape }} {{ '<a>' | e ~ '<' }} {{ '<a>' | safe + '<b>' }} {{ '<b>' + ('<a>' | safe) }} {{ ('<a>' | safe) ~ '<b>' }} {{ "it's" | e }} {{ '/' | e }}
{{ 'a b  c'.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a b c'.split(none, 1) }} {{ 'a</think>b'.split('</think>')[-1] }}
{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpartition('-') }} {{ 'abc'.partition('-') }} {{ 'abc'.rpartition('-') }}
{{ '  ab '.strip() }}|{{ 'xxabxx'.strip('x') }}|{{ 'xxab'.lstrip('x') }}|{{ 'abxx'.rstrip('bx') }}|{{ '\n a \n'.lstrip('\n') }}|{{ '  a'.lstrip(' ') }}|
{{ 'abc'.startswith('a') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.find('c') }} {{ 'abc'.find('z') }} {{ 'abcabc'.rfind('c') }} {{ 'abca'.count('a') }} {{ 'éa'.find('a') }} {{ 'abc'.index('b') }}
{{ 'abc'.index('z') }}
{{ 'aBc'.upper() }} {{ 'aBc'.lower() }} {{ 'abc def'.title() }} {{ 'aBC'.capitalize() }} {{ 'aBc'.swapcase() }} {{ 'abc'.replace('b', 'x') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ '-'.join(['a', 'b']) }} {{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}
{{ '-'.join([1]) }}
{{ 'abc'.center(8) }}|{{ 'abc'.center(6, '*') }}|{{ 'abc'.ljust(5, '.') }}|{{ 'abc'.rjust(5) }}|{{ '-5'.zfill(4) }}|{{ 'ab'.center(5, '*') }}
{{ 'a\nb\r\nc\n'.splitlines() }} {{ ''.splitlines() }} {{ 'abc'.isalpha() }} {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'ab'.islower() }} {{ 'AB'.isupper() }}
{{ words.index('c') }} {{ words.count('a') }}
{{ words.append('x') }}
{{ nested.update({'a': 1}) }}
{{ nested.pop('a') }}
{{ text.nothing_like_this() }}
{{ nothing.strip() }}
{{ words.strip() }}
{{ missing() }}
{{ five() }}
{{ text.__class__ }}
{{ words.__class__.__mro__ }}
{{ ''.__class__.__mro__[1].__subclasses__() }}
{{ cycler.__init__.__globals__ }}
{{ self.__init__ }}
{{ raise_exception('no: ' ~ five) }}
{% if false %}{{ raise_exception('never') }}{% endif %}fine
{{ strftime_now('%d %b %Y %H:%M') }} {{ strftime_now('%B %d, %Y') }}
{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict() }}
{{ {'a': 1, 'b': [1, 2]}['b'][1] }} {{ {'a': 1}.a }} {{ {'items': 1}['items'] }} {{ [1, 2, 3][1] }} {{ {'a': 1, 'a': 2} }}
{{ words | groupby('x') | list | length }}
{% for group, list in people | groupby('age') %}{{ group }}:{{ list | length }} {% endfor %}
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3] | batch(2, '-') | list }} {{ [1, 2, 3, 4, 5] | slice(2) | list }}
{{ unknown_function('x') }}
{{ 'x' | unknown_filter }}
{{ 'x' is unknown_test }}
{% include 'other' %}
{% import 'other' as other %}
{% extends 'other' %}
{% block body %}in a block {{ five }}{% endblock %}
{% unknown_tag %}
{% if true %}
{{ 'open
{{ 1 + }}
{% for x in words %}{{ x }}
{{ namespace(a=1).a }} {{ [namespace(a=1)][0].a }}
{{ words | string }} {{ nested | string }} {{ 1e16 }} {{ 1e15 }} {{ 123456789.125 }} {{ 1e-5 }} {{ 0.0001 }} {{ 100000000000000000000 }} {{ -0.0 }}
{{ '\u00e9\x41\n\t\\\'' }} {{ "a\"b" }} {{ 'a\qb' }}
{{ 1_000 }} {{ 0x10 }} {{ 0b11 }} {{ 1.5e3 }}
{{ true }} {{ True }} {{ none }} {{ None }} {{ false }}
{%- for m in people -%} {{ m.name }} {%- endfor %} end
  {% if true %}  x {% endif %}  y
a {%+ if true %} b {% endif +%} c
{{ five -}}   x   {{- five }}
{# comment -#}   x  {#- other #} y
""".strip("\n").split("\n")

# Those that need line breaks of their own; "⏎" stands for one.
LINES = """
a⏎  {% if true %}⏎b⏎  {% endif %}⏎c⏎
  {{ five }}⏎  {{- five }}⏎{{ five -}}⏎  x⏎⏎
{% for x in words %}⏎  - {{ x }}⏎{% endfor %}⏎⏎end⏎
⏎⏎  {# c #}⏎ x⏎  {%- if true %}⏎⏎ y {%- endif -%} ⏎ z
{% raw %}⏎ {{ x }}⏎{% endraw %}⏎x
{% generation %}⏎  a⏎  {% endgeneration %}⏎b
{%- set x %}⏎  a⏎{%- endset %}⏎[{{ x }}]
{% macro m() %}⏎  in⏎{% endmacro %}⏎{{ m() }}⏎.
  {%- macro m() -%}⏎  in⏎{%- endmacro -%}⏎{{ m() }}⏎⏎.
a⏎{% filter upper %}⏎b⏎{% endfilter %}⏎c
{{ 'a⏎b' }}⏎{% if⏎ true⏎%}x{% endif %}
\ta\t{% if true %}\tb\t{% endif %}\t⏎{% if true %}⏎{% endif %}\t⏎
""".strip("\n").split("\n")


def main():
    freeze_clock(1767323045)
    results = {}
    for snippet in SNIPPETS + [line.replace("⏎", "\n").replace("\\t", "\t") for line in LINES]:
        try:
            (results[snippet],), _ = chat_template_utils.render_jinja_template(
                conversations=[[]], chat_template=snippet, **VARIABLES
            )
        except Exception:
            results[snippet] = None
    output = {"variables": VARIABLES, "snippets": results}
    path = pathlib.Path(__file__).parent / "chat_snippets.json"
    path.write_text(json.dumps(output, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
