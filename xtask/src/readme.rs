//! The commands that the README shows, as CI runs them.

/// The arguments of every `$ cargo xtask ARGS` line in a `console` block, each once, in order.
///
/// Left out are `run`, which waits for a person, `ci`, which is who asks, and `bench`, whose figures would be of a
/// machine that has just compiled for a quarter of an hour; that it runs is a test's to see.
pub(crate) fn commands(readme: &str) -> Vec<Vec<&str>> {
    let mut commands = Vec::new();
    let mut block = None;
    for line in readme.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language.trim()) };
            continue;
        }
        let Some(words) = line.trim_start().strip_prefix("$ cargo xtask ") else {
            continue;
        };
        let words: Vec<&str> = words.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let for_ci = words.first().is_some_and(|command| !["bench", "ci", "run"].contains(command));
        if block == Some("console") && for_ci && !commands.contains(&words) {
            commands.push(words);
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "
Run `cargo xtask demo`:

```console
$ cargo xtask demo
$ cargo xtask nothing-of-this-is-output-but-a-line-that-starts-like-a-command
10.77.0.11   50/s
```

```sh
$ cargo xtask setup
```

```console
$ cargo xtask run --interface eth0
$ cargo xtask bench -- packets
$ cargo xtask doctor --json   # a glance
$ cargo xtask demo
$ throttle status
$ cargo xtask ci
$ cargo xtask test
```

$ cargo xtask lint
";

    #[test]
    fn commands_of_console_blocks_are_run_once_and_in_order() {
        assert_eq!(
            commands(README),
            [
                vec!["demo"],
                vec!["nothing-of-this-is-output-but-a-line-that-starts-like-a-command"],
                vec!["doctor", "--json"],
                vec!["test"],
            ]
        );
    }
}
