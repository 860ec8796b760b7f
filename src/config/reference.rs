//! `docs/configuration.md`, made from the keys' own descriptions and held to them by a test.
//! `UPDATE_DOCS=1 cargo test` writes it anew.

use std::fmt::Write as _;

use super::keys::{Fallback, Group, KeyInfo, Naming, Shape, flowed, listed};
use super::librdkafka::REFUSED;
use super::typed;

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from src/config by `UPDATE_DOCS=1 cargo test`; changes belong there. -->

Waltide reads one YAML file, named by `--config` or the environment variable `WALTIDE_CONFIG`, and
the environment. `waltide config check` says whether it holds, `waltide config show` prints what it
comes to, with every default written out and marked and every secret masked, and `waltide config schema`
prints a JSON Schema for editors.

The smallest useful file:

```yaml
{minimal}```

What is wrong is said with file, line and column, all of it at once, and the daemon does not start:

```text
{errors}
```

## From the environment

Every key is also an environment variable, which wins over the file: `WALTIDE_`, then the path to the
key in capitals, with two underscores between levels. `pipelines.shop.source.url` is

```sh
WALTIDE_PIPELINES__SHOP__SOURCE__URL=postgres://waltide@db:5432/shop
```

- A pipeline's name is matched without regard to `-` and `_`: `SHOP_EU` is `shop-eu`. A name that is not in
  the file makes a pipeline, so a daemon can do without a file.
- In the names of Kafka's properties `_` stands for a dot: `WALTIDE_PIPELINES__SHOP__KAFKA__PROPERTIES__LINGER_MS` is
  `linger.ms`.
- A table under `table_options` takes two levels: `...__TABLE_OPTIONS__PUBLIC__ORDERS__TOPIC`. Names with capitals can
  only be given in the file.
- Lists are separated by commas. Values are taken as they are. An empty variable counts as not set.
- A variable that begins with `WALTIDE_`, has two underscores in a row and stands for no key is an error.

## Inside values

| Written | Becomes |
|---|---|
| `${VAR}` | the environment variable; an error where it is not set |
| `${VAR:-default}` | the same, or the default where it is not set or empty |
| `${file:/path}` | what the file holds, without the line break at its end; never shown |
| `$$` | a dollar |

What comes in is taken as it is and can change nothing but the value. A key without a value, or with one that
comes out empty, counts as not given. Relative paths are taken from the working directory.

## Secrets

Passwords are best kept in files, or printed by a command: `password_file`, `token_file` and `password_command` are read
or run for each new connection, so passwords and tokens can change while the daemon runs. Certificates and keys named by path
are read again with each new connection as well. Passwords, tokens, secret properties, the passwords in URLs and all that comes from `${file:...}` are
masked wherever the configuration is printed, errors included.

## Anchors

`&name`, `*name` and `<<: *name` work as usual in YAML, to share what several pipelines have in common. A value that begins with
`*`, such as the pattern `*.*`, must be in quotes.

## Keys
";

fn reference(minimal: &str, errors: &str) -> String {
    let mut page = INTRODUCTION.replace("{minimal}", minimal).replace("{errors}", errors);
    if let Shape::Group(root) = typed::shape() {
        write_group(&mut page, "", "WALTIDE_", &root);
    }
    page.push_str(
        "\n## Properties of librdkafka that are refused\n\nAny other property of librdkafka may stand under \
         `kafka.properties`.\n\n\
         | Property | Why | Instead |\n|---|---|---|\n",
    );
    for refused in REFUSED {
        let names: Vec<_> = refused.names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "| {} | {} | {} |", names.join(", "), refused.why, refused.instead);
    }
    page
}

/// A section for a group of keys, and those for the groups below it. `prefix` is what the
/// names of its environment variables begin with.
fn write_group(page: &mut String, path: &str, prefix: &str, group: &Group) {
    let title = if path.is_empty() { "The file".to_owned() } else { format!("`{path}`") };
    let _ = writeln!(page, "\n### {title}\n\n{}", flowed(group.about));
    let _ = writeln!(page, "\n| Key | Takes | Default | Meaning |\n|---|---|---|---|");
    for key in &group.keys {
        row(page, key);
    }
    if !path.is_empty() {
        let _ = writeln!(page, "\nIn the environment: `{prefix}<KEY>`");
    }
    for key in &group.keys {
        let dot = if path.is_empty() { "" } else { "." };
        let prefix = format!("{prefix}{}__", key.name.to_uppercase());
        write_shape(page, &format!("{path}{dot}{}", key.name), &prefix, &key.shape);
    }
}

fn write_shape(page: &mut String, path: &str, prefix: &str, shape: &Shape) {
    match shape {
        Shape::Group(inner) | Shape::Short(_, inner) => write_group(page, path, prefix, inner),
        Shape::Map { naming, value } => {
            let segments = match naming {
                Naming::Pipeline => "<PIPELINE>__",
                Naming::Property => "<PROPERTY>__",
                Naming::Table => "<SCHEMA>__<TABLE>__",
            };
            let path = format!("{path}.{}", naming.placeholder());
            write_shape(page, &path, &format!("{prefix}{segments}"), value);
        }
        Shape::Text
        | Shape::Secret
        | Shape::Flag
        | Shape::Integer { .. }
        | Shape::Choice(_)
        | Shape::List(_) => {}
    }
}

fn row(page: &mut String, key: &KeyInfo) {
    let fallback = match key.fallback {
        Fallback::Required => "must be given".to_owned(),
        Fallback::Optional => String::new(),
        Fallback::Is(value) => format!("`{value}`"),
        Fallback::Derived(text) => text.to_owned(),
    };
    let mut meaning = flowed(key.about);
    if let Shape::Choice(words) = &key.shape {
        for word in *words {
            let _ = write!(meaning, "<br>`{}`: {}", word.text, flowed(word.about));
        }
    }
    let _ = writeln!(page, "| `{}` | {} | {fallback} | {meaning} |", key.name, takes(&key.shape));
}

fn takes(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Secret => "secret text".to_owned(),
        Shape::Flag => listed(["true", "false"]),
        Shape::Integer { min, max } => format!("{min} to {max}"),
        Shape::Choice(words) => listed(words.iter().map(|word| word.text)),
        Shape::List(_) => "list of texts".to_owned(),
        Shape::Map { naming: Naming::Property, .. } => "values by property".to_owned(),
        Shape::Map { naming: Naming::Pipeline, .. } => "keys by pipeline".to_owned(),
        Shape::Map { naming: Naming::Table, .. } => "keys by table".to_owned(),
        Shape::Group(_) => "keys".to_owned(),
        Shape::Short(words, _) => listed(words.iter().map(|word| word.text)) + ", or keys",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, parse};

    const MISTAKES: &str = "\
pipelines:
  shop:
    source:
      url: postgres://waltide@db:5432/shop
      table: [public.*]
    kafka:
      bootstrap_servers: kafka:9092
      properties:
        acks: 1
    registry:
      url: http://registry:8081
    delivery: exactly_one
";

    #[test]
    fn the_reference_page_says_what_the_keys_say() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let minimal = std::fs::read_to_string(root.join("examples/minimal.yaml")).unwrap();
        let errors = parse("waltide.yaml", MISTAKES, &Environment::default()).unwrap_err();
        let page = reference(&minimal, &errors.to_string());
        let path = root.join("docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "docs/configuration.md is stale: run `UPDATE_DOCS=1 cargo test`");
    }
}
