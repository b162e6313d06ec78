//! The registry: the notations of tool calls and of thinking that are known. Found by rendering the templates in use,
//! and held against them by a test.

use super::Part::{
    Arguments, Count, From, IdBegins, IdEnds, Is, Keyed, Maybe, Name, Object, Space, Word,
};
use super::{Family, Notation, ObjectId, Part, Tags, Thinking};

/// `{"name": …, "arguments": …}`.
const NAMED: Part = Object { name: "name", arguments: "arguments", id: None };

/// What is the same in most families.
const PLAIN: Family = Family {
    name: "",
    signs: &[],
    open: &[],
    calls: &[],
    between: &[Space],
    close: &[],
    triggers: &[],
    is_bare: false,
    begun: "",
    text_open: "",
};

/// The notation that is asked of models whose templates show no tools.
pub static GENERIC: Family =
    Family { name: "generic JSON", calls: &[&[NAMED]], is_bare: true, ..PLAIN };

/// Tags of Qwen3-Coder and those who took them over.
static PARAMETER: Tags = Tags { open: "<parameter=", text: ">", json: ">", close: "</parameter>" };

static ARG_KEY: Tags = Tags {
    open: "<arg_key>",
    text: "</arg_key>\n<arg_value>",
    json: "</arg_key>\n<arg_value>",
    close: "</arg_value>",
};

static HUNYUAN: Tags = Tags {
    open: "<arg_key:opensource>",
    text: "</arg_key:opensource>\n<arg_value:opensource>",
    json: "</arg_key:opensource>\n<arg_value:opensource>",
    close: "</arg_value:opensource>",
};

static NAMED_PARAMETER: Tags =
    Tags { open: "<parameter name=\"", text: "\">", json: "\">", close: "</parameter>" };

static DSML: Tags = Tags {
    open: "<｜DSML｜parameter name=\"",
    text: "\" string=\"true\">",
    json: "\" string=\"false\">",
    close: "</｜DSML｜parameter>",
};

static PARAM: Tags = Tags { open: "<param name=\"", text: "\">", json: "\">", close: "</param>" };

const DSML_CALL: &[Part] = &[
    Is("<｜DSML｜invoke name=\""),
    Name,
    Is("\">"),
    Arguments(Notation::Tags(&DSML)),
    Space,
    Is("</｜DSML｜invoke>"),
];

const FUNCTION_CALL: &[Part] = &[
    Is("<tool_call>"),
    Space,
    Is("<function="),
    Name,
    Is(">"),
    Arguments(Notation::Tags(&PARAMETER)),
    Space,
    Is("</function>"),
    Space,
    Is("</tool_call>"),
];

/// Harmony writes the addressee in front of the channel or behind it.
const HARMONY_JSON: Part = Maybe(&[Is(" "), Maybe(&[Is("<|constrain|>")]), Is("json")]);

/// Every family; the first whose signs a template has is the template's.
pub static FAMILIES: &[Family] = &[
    Family {
        name: "Harmony",
        signs: &[&["<|channel|>", "to=functions"], &["<|channel|>commentary", "functions."]],
        calls: &[
            &[
                Is("<|channel|>"),
                From("commentary to=functions."),
                Name,
                HARMONY_JSON,
                Is("<|message|>"),
                Arguments(Notation::Json),
                Maybe(&[Is("<|call|>")]),
            ],
            &[
                Is("<|start|>"),
                From("assistant to=functions."),
                Name,
                Is("<|channel|>commentary"),
                HARMONY_JSON,
                Is("<|message|>"),
                Arguments(Notation::Json),
                Maybe(&[Is("<|call|>")]),
            ],
            &[
                Is("to=functions."),
                Name,
                Is("<|channel|>commentary"),
                HARMONY_JSON,
                Is("<|message|>"),
                Arguments(Notation::Json),
                Maybe(&[Is("<|call|>")]),
            ],
        ],
        between: &[Is("<|start|>assistant")],
        triggers: &["commentary to=functions.", "assistant to=functions."],
        ..PLAIN
    },
    Family {
        name: "Solar",
        signs: &[&["<|tool_call:begin|>", "<|tool_call:args|>"]],
        open: &[Is("<|tool_calls|>")],
        calls: &[&[
            Is("<|tool_call:begin|>"),
            IdBegins,
            Word(32),
            IdEnds,
            Is("<|tool_call:name|>"),
            Name,
            Is("<|tool_call:args|>"),
            Arguments(Notation::Json),
            Is("<|tool_call:end|>"),
        ]],
        close: &[Maybe(&[Is("<|calls|>")])],
        ..PLAIN
    },
    Family {
        name: "DeepSeek DSML",
        signs: &[&["DSML", "function_calls"]],
        open: &[Is("<｜DSML｜function_calls>")],
        calls: &[DSML_CALL],
        close: &[Is("</｜DSML｜function_calls>")],
        ..PLAIN
    },
    Family {
        name: "DeepSeek V4",
        signs: &[&["DSML", "tool_calls"]],
        open: &[Is("<｜DSML｜tool_calls>")],
        calls: &[DSML_CALL],
        close: &[Is("</｜DSML｜tool_calls>")],
        ..PLAIN
    },
    Family {
        name: "DeepSeek R1",
        signs: &[&["<｜tool▁calls▁begin｜>", "```json"]],
        open: &[Is("<｜tool▁calls▁begin｜>")],
        calls: &[&[
            Is("<｜tool▁call▁begin｜>function<｜tool▁sep｜>"),
            Name,
            Is("\n```json\n"),
            Arguments(Notation::Json),
            Is("\n```"),
            Space,
            Is("<｜tool▁call▁end｜>"),
        ]],
        close: &[Is("<｜tool▁calls▁end｜>")],
        ..PLAIN
    },
    Family {
        name: "DeepSeek V3.1",
        signs: &[&["<｜tool▁calls▁begin｜>"]],
        open: &[Is("<｜tool▁calls▁begin｜>")],
        calls: &[&[
            Is("<｜tool▁call▁begin｜>"),
            Name,
            Is("<｜tool▁sep｜>"),
            Arguments(Notation::Json),
            Is("<｜tool▁call▁end｜>"),
        ]],
        close: &[Is("<｜tool▁calls▁end｜>")],
        ..PLAIN
    },
    Family {
        name: "Kimi K2",
        signs: &[&["<|tool_calls_section_begin|>"]],
        open: &[Is("<|tool_calls_section_begin|>")],
        calls: &[&[
            Is("<|tool_call_begin|>"),
            IdBegins,
            Is("functions."),
            Name,
            Is(":"),
            Count,
            IdEnds,
            Is("<|tool_call_argument_begin|>"),
            Arguments(Notation::Json),
            Is("<|tool_call_end|>"),
        ]],
        close: &[Is("<|tool_calls_section_end|>")],
        ..PLAIN
    },
    Family {
        name: "MiniMax M3",
        signs: &[&["]<]minimax[>["]],
        open: &[Is("]<]minimax[>[<tool_call>")],
        calls: &[&[
            Is("]<]minimax[>[<invoke name=\""),
            Name,
            Is("\">"),
            Arguments(Notation::Nested("]<]minimax[>[")),
            Space,
            Is("]<]minimax[>[</invoke>"),
        ]],
        close: &[Is("]<]minimax[>[</tool_call>")],
        ..PLAIN
    },
    Family {
        name: "MiniMax M2",
        signs: &[&["<minimax:tool_call>"]],
        open: &[Is("<minimax:tool_call>")],
        calls: &[&[
            Is("<invoke name=\""),
            Name,
            Is("\">"),
            Arguments(Notation::Tags(&NAMED_PARAMETER)),
            Space,
            Is("</invoke>"),
        ]],
        close: &[Is("</minimax:tool_call>")],
        ..PLAIN
    },
    Family {
        name: "Hunyuan 3",
        signs: &[&["<tool_calls{}>", "<arg_key{}>", ":opensource"]],
        open: &[Is("<tool_calls:opensource>")],
        calls: &[&[
            Is("<tool_call:opensource>"),
            Name,
            Is("<tool_sep:opensource>"),
            Arguments(Notation::Tags(&HUNYUAN)),
            Space,
            Is("</tool_call:opensource>"),
        ]],
        close: &[Is("</tool_calls:opensource>")],
        ..PLAIN
    },
    Family {
        name: "Seed",
        signs: &[&["<seed:tool_call>"]],
        calls: &[&[
            Is("<seed:tool_call>"),
            Space,
            Is("<function="),
            Name,
            Is(">"),
            Arguments(Notation::Tags(&PARAMETER)),
            Space,
            Is("</function>"),
            Space,
            Is("</seed:tool_call>"),
        ]],
        ..PLAIN
    },
    Family {
        name: "GLM 4",
        signs: &[&["<arg_key>"]],
        calls: &[&[
            Is("<tool_call>"),
            Name,
            Space,
            Arguments(Notation::Tags(&ARG_KEY)),
            Space,
            Is("</tool_call>"),
        ]],
        ..PLAIN
    },
    Family {
        name: "Qwen3 Coder",
        signs: &[&["<tool_call>", "<function=", "<parameter="]],
        calls: &[FUNCTION_CALL],
        ..PLAIN
    },
    Family {
        name: "MiniCPM 5",
        signs: &[&["<function name=", "<param name="]],
        calls: &[&[
            Is("<function name=\""),
            Name,
            Is("\">"),
            Arguments(Notation::Tags(&PARAM)),
            Space,
            Is("</function>"),
        ]],
        ..PLAIN
    },
    Family {
        name: "Gemma 4",
        signs: &[&["<|tool_call>call:"]],
        calls: &[&[
            Is("<|tool_call>call:"),
            Name,
            Is("{"),
            Arguments(Notation::Bare("<|\"|>")),
            Is("}"),
            Is("<tool_call|>"),
        ]],
        ..PLAIN
    },
    Family {
        name: "LFM2",
        signs: &[&["<|tool_call_start|>"], &["<|tool_list_start|>"], &["List of tools: ["]],
        open: &[Is("<|tool_call_start|>"), Is("[")],
        calls: &[&[Name, Is("("), Arguments(Notation::Python), Is(")")]],
        between: &[Is(","), Space],
        close: &[Is("]"), Is("<|tool_call_end|>")],
        ..PLAIN
    },
    Family {
        name: "Mistral with identifiers",
        signs: &[&["[TOOL_CALLS]", "[CALL_ID]"]],
        calls: &[MISTRAL_11_ID],
        between: &[],
        ..PLAIN
    },
    Family {
        name: "Mistral 11",
        signs: &[&["[TOOL_CALLS]", "[ARGS]"]],
        calls: &[&[Is("[TOOL_CALLS]"), Name, Is("[ARGS]"), Arguments(Notation::Json)]],
        between: &[],
        ..PLAIN
    },
    Family {
        name: "Mistral Nemo",
        signs: &[&["[TOOL_CALLS]"]],
        open: &[Is("[TOOL_CALLS]"), Space, Is("[")],
        calls: &[&[Object {
            name: "name",
            arguments: "arguments",
            id: Some(ObjectId { name: "id", is_first: false, is_kept: true }),
        }]],
        between: &[Is(","), Space],
        close: &[Is("]")],
        ..PLAIN
    },
    Family {
        name: "Functionary 3.2",
        signs: &[&[">>>all", ">>>"], &["'>>>'", "recipient"], &[">>>${recipient}"]],
        calls: &[&[Is(">>>"), Name, Is("\n"), Arguments(Notation::Json)]],
        between: &[],
        begun: ">>>",
        text_open: ">>>all\n",
        ..PLAIN
    },
    Family {
        name: "Functionary 3.1",
        signs: &[&["<function=", "</function>"]],
        calls: &[&[Is("<function="), Name, Is(">"), Arguments(Notation::Json), Is("</function>")]],
        ..PLAIN
    },
    Family {
        name: "Firefunction",
        signs: &[&["functools["]],
        open: &[Is("functools[")],
        calls: &[&[NAMED]],
        between: &[Is(","), Space],
        close: &[Is("]")],
        ..PLAIN
    },
    Family {
        name: "Command R7B",
        signs: &[&["<|START_ACTION|>"]],
        open: &[Is("<|START_ACTION|>"), Is("[")],
        calls: &[&[Object {
            name: "tool_name",
            arguments: "parameters",
            id: Some(ObjectId { name: "tool_call_id", is_first: true, is_kept: false }),
        }]],
        between: &[Is(","), Space],
        close: &[Is("]"), Is("<|END_ACTION|>")],
        ..PLAIN
    },
    Family {
        name: "Command R+",
        signs: &[&["Action:", "```json", "tool_name"]],
        open: &[Is("Action:"), Space, Is("```json"), Space, Is("[")],
        calls: &[&[Object { name: "tool_name", arguments: "parameters", id: None }]],
        between: &[Is(","), Space],
        close: &[Is("]"), Space, Is("```")],
        ..PLAIN
    },
    Family {
        name: "GigaChat 3",
        signs: &[&["function call<|role_sep|>"], &["'function call'", "<|role_sep|>"]],
        calls: &[&[
            Is("<|message_sep|>"),
            Is("\n\nfunction call"),
            Is("<|role_sep|>"),
            Is("\n"),
            NAMED,
        ]],
        ..PLAIN
    },
    Family {
        name: "GigaChat 3.1",
        signs: &[&["<|function_call|>"]],
        calls: &[&[Is("<|function_call|>"), NAMED]],
        ..PLAIN
    },
    Family {
        name: "Apertus",
        signs: &[&["<|tools_prefix|>"]],
        open: &[Is("<|tools_prefix|>"), Is("[")],
        calls: &[&[Keyed]],
        between: &[Is(","), Space],
        close: &[Is("]"), Is("<|tools_suffix|>")],
        ..PLAIN
    },
    Family {
        name: "Apriel",
        signs: &[&["<tool_calls>"]],
        open: &[Is("<tool_calls>"), Space, Is("[")],
        calls: &[&[NAMED]],
        between: &[Is(","), Space],
        close: &[Is("]"), Space, Is("</tool_calls>")],
        ..PLAIN
    },
    Family {
        name: "Nemotron 2",
        signs: &[&["<TOOLCALL>"]],
        open: &[Is("<TOOLCALL>"), Is("[")],
        calls: &[&[NAMED]],
        between: &[Is(","), Space],
        close: &[Is("]"), Is("</TOOLCALL>")],
        ..PLAIN
    },
    Family {
        name: "Granite 3",
        signs: &[&["<|tool_call|>", "JSON list"]],
        open: &[Is("<|tool_call|>"), Space, Is("[")],
        calls: &[&[NAMED]],
        between: &[Is(","), Space],
        close: &[Is("]")],
        ..PLAIN
    },
    Family {
        name: "Phi 4",
        signs: &[&["<|tool_call|>", "<|/tool_call|>"]],
        open: &[Is("<|tool_call|>"), Space, Is("[")],
        calls: &[&[NAMED]],
        between: &[Is(","), Space],
        close: &[Is("]"), Space, Maybe(&[Is("<|/tool_call|>")])],
        ..PLAIN
    },
    Family {
        name: "Hermes",
        signs: &[&["<tool_call>"]],
        calls: &[&[Is("<tool_call>"), Space, NAMED, Space, Is("</tool_call>")]],
        ..PLAIN
    },
    Family {
        name: "Llama 3",
        signs: &[&["<|start_header_id|>", "\"parameters\": "], &["<|python_tag|>"]],
        calls: &[
            &[Object { name: "name", arguments: "parameters", id: None }],
            &[Is("<|python_tag|>"), Object { name: "name", arguments: "parameters", id: None }],
        ],
        between: &[Is(";"), Space],
        is_bare: true,
        ..PLAIN
    },
];

const MISTRAL_11_ID: &[Part] = &[
    Is("[TOOL_CALLS]"),
    Name,
    Maybe(&[Is("[CALL_ID]"), IdBegins, Word(9), IdEnds]),
    Is("[ARGS]"),
    Arguments(Notation::Json),
];

/// What is the same in most notations of thinking.
const THINK: Thinking = Thinking {
    open: "<think>",
    close: "</think>",
    signs: &["</think>"],
    then: "",
    text_open: "",
    silent: &[],
};

/// Every notation of thinking; the first of which a template has a sign is the template's.
pub static THINKING: &[Thinking] = &[
    Thinking {
        open: "<|channel|>analysis<|message|>",
        close: "<|end|>",
        signs: &["<|channel|>analysis<|message|>"],
        then: "<|start|>assistant",
        text_open: "<|channel|>final<|message|>",
        silent: &[
            "<|channel|>final<|message|>",
            "<|channel|>final <|constrain|>json<|message|>",
            "<|channel|>commentary<|message|>",
            "<|start|>assistant",
            "<|end|>",
        ],
    },
    Thinking {
        open: "<|think|>",
        close: "<|end|>",
        signs: &["<|think|>\" + ", "<|begin|>assistant<|think|>", "'<|think|>'", "\"<|think|>\""],
        then: "<|begin|>assistant",
        text_open: "<|content|>",
        silent: &["<|content|>", "<|begin|>assistant", "<|end|>"],
    },
    Thinking {
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
        signs: &["<|START_TEXT|>"],
        text_open: "<|START_TEXT|>",
        silent: &["<|START_TEXT|>", "<|END_TEXT|>"],
        ..THINK
    },
    Thinking {
        open: "<|START_THINKING|>",
        close: "<|END_THINKING|>",
        signs: &["<|START_THINKING|>"],
        text_open: "<|START_RESPONSE|>",
        silent: &["<|START_RESPONSE|>", "<|END_RESPONSE|>"],
        ..THINK
    },
    Thinking {
        open: "<|channel>thought",
        close: "<channel|>",
        signs: &["<|channel>thought"],
        ..THINK
    },
    Thinking {
        open: "<|inner_prefix|>",
        close: "<|inner_suffix|>",
        signs: &["<|inner_prefix|>"],
        ..THINK
    },
    Thinking {
        open: "Here are my reasoning steps:",
        close: "[BEGIN FINAL RESPONSE]",
        signs: &["[BEGIN FINAL RESPONSE]"],
        silent: &["[END FINAL RESPONSE]"],
        ..THINK
    },
    Thinking { open: "<seed:think>", close: "</seed:think>", signs: &["</seed:think>"], ..THINK },
    Thinking { open: "<mm:think>", close: "</mm:think>", signs: &["</mm:think>"], ..THINK },
    Thinking {
        open: "<think:opensource>",
        close: "</think:opensource>",
        signs: &["</think{}>"],
        ..THINK
    },
    Thinking { open: "[THINK]", close: "[/THINK]", signs: &["[/THINK]"], ..THINK },
    Thinking { silent: &["<response>", "</response>"], signs: &["<response></response>"], ..THINK },
    THINK,
];
