//! A template as instructions for minijinja's machine, with the operators that are ours put in.
//!
//! minijinja's own operators differ from Python's in small ways (how a list prints, what `None +
//! ""` does) and know no limit on memory. Its parser and machine are public (feature
//! `unstable_machinery`, hence the exact version in the workspace manifest), so each such
//! instruction becomes a call of a filter of ours, whose name no template can spell where a
//! filter's name is expected. Jump targets are moved along.

use std::collections::BTreeMap;

use minijinja::machinery::{CodeGenerator, Instruction, Instructions, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, Value};

/// The template's name in minijinja's errors; we print only the line.
const NAME: &str = "chat_template";
/// "No slot in the machine's cache of filters": the filter is looked up by name.
const NO_SLOT: u8 = !0;

/// A compiled template.
pub(super) struct Compiled<'s> {
    /// The template itself.
    pub(super) instructions: Instructions<'s>,
    /// Its named blocks.
    pub(super) blocks: BTreeMap<&'s str, Instructions<'s>>,
}

/// Parses a template and compiles it, with our operators in the place of minijinja's.
pub(super) fn compile(source: &str) -> Result<Compiled<'_>, Error> {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    let tree = parse(source, NAME, syntax)?;
    let mut generator = CodeGenerator::new(NAME, source);
    generator.compile_stmt(&tree);
    let (instructions, blocks) = generator.finish();
    Ok(Compiled {
        instructions: with_our_operators(&instructions),
        blocks: blocks.iter().map(|(name, block)| (*name, with_our_operators(block))).collect(),
    })
}

fn with_our_operators<'s>(theirs: &Instructions<'s>) -> Instructions<'s> {
    let mut expanded = Vec::new();
    let mut starts = Vec::new();
    let mut position = 0_u32;
    while let Some(instruction) = theirs.get(expanded.len() as u32) {
        let ours = expand(instruction);
        starts.push(position);
        position += ours.len() as u32;
        expanded.push(ours);
    }
    starts.push(position);
    let mut instructions = Instructions::new(NAME, theirs.source());
    for (index, ours) in expanded.into_iter().enumerate() {
        let line = theirs.get_line(index as u32).unwrap_or_default() as u16;
        for mut instruction in ours {
            move_jump(&mut instruction, &starts);
            instructions.add_with_line(instruction, line);
        }
    }
    instructions
}

/// What stands in the place of one of minijinja's instructions.
fn expand<'s>(instruction: &Instruction<'s>) -> Vec<Instruction<'s>> {
    use Instruction as I;
    let ours = |name, arguments| I::ApplyFilter(name, Some(arguments), NO_SLOT);
    match instruction {
        I::EmitRaw(raw) => vec![I::LoadConst(Value::from(*raw)), I::Emit],
        I::Add => vec![ours("+", 2)],
        I::Mul => vec![ours("*", 2)],
        I::Rem => vec![ours("%", 2)],
        I::StringConcat => vec![ours("~", 2)],
        I::GetItem => vec![ours("[]", 2)],
        I::Slice => vec![ours("[:]", 4)],
        I::Eq => vec![ours("==", 2)],
        I::Ne => vec![ours("==", 2), I::Not],
        I::Lt => vec![ours("<", 2)],
        I::Lte => vec![ours("<=", 2)],
        I::Gt => vec![ours(">", 2)],
        I::Gte => vec![ours(">=", 2)],
        I::In => vec![ours("in", 2)],
        I::CompareAndPreserve(_) => {
            vec![I::Swap, ours("=read", 1), I::Swap, ours("=read", 1), instruction.clone()]
        }
        I::BuildList(_) | I::BuildTuple(_) | I::BuildMap(_) => {
            vec![instruction.clone(), ours("=read", 1)]
        }
        I::SetAttr(name) if name.starts_with('_') => vec![ours("=private", 1), instruction.clone()],
        I::SetAttr(_) => vec![I::Swap, ours("=attribute", 1), I::Swap, instruction.clone()],
        I::PushLoop(_) => vec![ours("=iterate", 1), instruction.clone()],
        other => vec![other.clone()],
    }
}

fn move_jump(instruction: &mut Instruction<'_>, starts: &[u32]) {
    use Instruction as I;
    if let I::Iterate(target)
    | I::Jump(target)
    | I::JumpIfFalse(target)
    | I::JumpIfFalseOrPop(target)
    | I::JumpIfTrueOrPop(target)
    | I::BuildMacro(_, target, _) = instruction
    {
        *target = starts[*target as usize];
    }
}
