//! A schema reduced to what its bytes and their meaning by name depend on, and its form as text.
//!
//! ```text
//! message distributed_trace.v1.Hops
//!   1 last uint32
//!   2 changed bool
//! enum distributed_trace.v1.Mode
//!   0 MODE_UNSPECIFIED
//! ```

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use protox::prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

/// All messages and enums by their names, package included.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Schema {
    pub types: BTreeMap<String, Definition>,
}

/// A message or an enum.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    pub kind: Kind,
    /// Fields or values, ascending by number.
    pub entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Message,
    Enum,
}

/// A field of a message or a value of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub number: i32,
    pub name: String,
    /// Label, where there is one, and type; empty for the value of an enum.
    pub form: String,
}

impl Schema {
    /// What a compiler made of schema files.
    pub fn of(descriptors: &FileDescriptorSet) -> Result<Self> {
        let mut schema = Self::default();
        for file in &descriptors.file {
            schema.add_file(file)?;
        }
        Ok(schema)
    }

    /// Inverse of `to_string`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut schema = Self::default();
        let mut current = None;
        for (index, line) in text.lines().enumerate() {
            let place = || format!("line {}: {line:?}", index + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(entry) = line.strip_prefix("  ") {
                let name: &String = current.as_ref().with_context(place)?;
                let definition = schema.types.get_mut(name).with_context(place)?;
                definition
                    .entries
                    .push(Entry::parse(entry).with_context(place)?);
                continue;
            }
            let (kind, name) = match line.split_once(' ') {
                Some(("message", name)) => (Kind::Message, name),
                Some(("enum", name)) => (Kind::Enum, name),
                _ => bail!("neither message nor enum in {}", place()),
            };
            schema.add(name, kind, Vec::new())?;
            current = Some(name.to_owned());
        }
        Ok(schema)
    }

    /// Lines of this schema that an earlier one has not, each with the name of its message or enum.
    pub fn added_since(&self, earlier: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, definition) in &self.types {
            let before = earlier.types.get(name);
            if before.is_none() {
                lines.push(format!("{} {name}", definition.kind));
            }
            let known = before.map_or(&[][..], |before| &before.entries);
            let new = definition
                .entries
                .iter()
                .filter(|entry| !known.contains(entry));
            lines.extend(new.map(|entry| format!("{name}: {entry}")));
        }
        lines
    }

    fn add_file(&mut self, file: &FileDescriptorProto) -> Result<()> {
        let package = file.package();
        for message in &file.message_type {
            self.add_message(package, message)?;
        }
        for one in &file.enum_type {
            self.add_enum(package, one)?;
        }
        Ok(())
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) -> Result<()> {
        let name = within(scope, message.name());
        for nested in &message.nested_type {
            self.add_message(&name, nested)?;
        }
        for nested in &message.enum_type {
            self.add_enum(&name, nested)?;
        }
        let entry = |field: &FieldDescriptorProto| Entry {
            number: field.number(),
            name: field.name().to_owned(),
            form: form(field, message),
        };
        self.add(
            &name,
            Kind::Message,
            message.field.iter().map(entry).collect(),
        )
    }

    fn add_enum(&mut self, scope: &str, one: &EnumDescriptorProto) -> Result<()> {
        let entries = one.value.iter().map(|value| Entry {
            number: value.number(),
            name: value.name().to_owned(),
            form: String::new(),
        });
        self.add(&within(scope, one.name()), Kind::Enum, entries.collect())
    }

    fn add(&mut self, name: &str, kind: Kind, mut entries: Vec<Entry>) -> Result<()> {
        entries.sort_by(|one, other| (one.number, &one.name).cmp(&(other.number, &other.name)));
        let twice = self
            .types
            .insert(name.to_owned(), Definition { kind, entries });
        ensure!(twice.is_none(), "{name} is defined twice");
        Ok(())
    }
}

impl Entry {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        Ok(Self {
            number: word().parse().context("no number")?,
            name: word().to_owned(),
            form: word().to_owned(),
        })
    }
}

fn within(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

/// Whether absence is told from zero, or which oneof the field is in, or whether it is repeated; and its type.
fn form(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let oneof = usize::try_from(field.oneof_index()).ok();
    let oneof = oneof.and_then(|index| message.oneof_decl.get(index));
    let label = if field.proto3_optional() {
        "optional ".to_owned()
    } else if let Some(oneof) = oneof.filter(|_| field.oneof_index.is_some()) {
        format!("oneof:{} ", oneof.name())
    } else {
        match field.label() {
            Label::Repeated => "repeated ".to_owned(),
            Label::Required => "required ".to_owned(),
            Label::Optional => String::new(),
        }
    };
    let of_type = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.'),
        scalar => scalar.as_str_name(),
    };
    let scalar = of_type.strip_prefix("TYPE_").map(str::to_lowercase);
    format!("{label}{}", scalar.as_deref().unwrap_or(of_type))
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        for (name, definition) in &self.types {
            writeln!(f, "\n{} {name}", definition.kind)?;
            for entry in &definition.entries {
                writeln!(f, "  {entry}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "message",
            Self::Enum => "enum",
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, name, form } = self;
        let gap = if form.is_empty() { "" } else { " " };
        write!(f, "{number} {name}{gap}{form}")
    }
}

const HEAD: &str = "\
# The schema as it was last released: number, name, label where there is one, type. Only ever extended.
# Written by `cargo xtask schema --accept`; the tests and `cargo xtask check` compare the schema with it.
";
