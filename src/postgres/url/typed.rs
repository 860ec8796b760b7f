//! The two written forms of a connection string, as keys and values.

use super::{ESCAPE, UrlError};

type Pairs = Vec<(String, String)>;

/// Keys and values in the order they were written.
pub(super) fn pairs(text: &str) -> Result<Pairs, UrlError> {
    let text = text.trim();
    for scheme in ["postgres://", "postgresql://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            return url(rest);
        }
    }
    if text.contains("://") && !text.contains('=') {
        return Err(UrlError::Form("a URL starts with postgres:// or postgresql://"));
    }
    keywords(text)
}

/// `[user[:password]@][host[:port],...][/dbname][?key=value&...]`
fn url(rest: &str) -> Result<Pairs, UrlError> {
    let mut pairs = Pairs::new();
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, q)| (rest, Some(q)));
    let (authority, database) =
        rest.split_once('/').map_or((rest, None), |(host, database)| (host, Some(database)));
    let hosts = match authority.split_once('@') {
        None if database.is_some_and(|rest| rest.contains('@')) => {
            return Err(UrlError::Form(ESCAPE));
        }
        None => authority,
        Some((login, hosts)) => {
            let (user, password) =
                login.split_once(':').map_or((login, None), |(user, pass)| (user, Some(pass)));
            pairs.push(("user".into(), decoded(user)?));
            if let Some(password) = password {
                pairs.push(("password".into(), decoded(password)?));
            }
            hosts
        }
    };
    if !hosts.is_empty() {
        let hosts = hosts.split(',').map(host_and_port).collect::<Result<Pairs, _>>()?;
        let (names, ports): (Vec<_>, Vec<_>) = hosts.into_iter().unzip();
        pairs.push(("host".into(), names.join(",")));
        pairs.push(("port".into(), ports.join(",")));
    }
    if let Some(database) = database {
        pairs.push(("dbname".into(), decoded(database)?));
    }
    for item in query.unwrap_or_default().split('&').filter(|item| !item.is_empty()) {
        let form = UrlError::Form("each setting after the '?' has the form key=value");
        let (key, value) = item.split_once('=').ok_or(form)?;
        match (decoded(key)?, decoded(value)?) {
            // The one spelling of other drivers that libpq takes as well.
            (key, value) if key == "ssl" && value == "true" => {
                pairs.push(("sslmode".into(), "require".into()));
            }
            pair => pairs.push(pair),
        }
    }
    Ok(pairs)
}

fn host_and_port(host: &str) -> Result<(String, String), UrlError> {
    if let Some(rest) = host.strip_prefix('[') {
        let open = UrlError::Form("an IPv6 address has no closing ']'");
        let (address, port) = rest.split_once(']').ok_or(open)?;
        return match port.strip_prefix(':') {
            Some(port) => Ok((decoded(address)?, decoded(port)?)),
            None if port.is_empty() => Ok((decoded(address)?, String::new())),
            None => Err(UrlError::Form("after an IPv6 address comes ':' and a port, or nothing")),
        };
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    Ok((decoded(name)?, decoded(port)?))
}

/// Undoes `%41`. A `+` is a plus, as in libpq.
fn decoded(text: &str) -> Result<String, UrlError> {
    let bad = UrlError::Form("a '%' must be followed by two hexadecimal digits and not be %00");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match (digit(), digit()) {
            (Some(high), Some(low)) if high + low > 0 => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
            }
            _ => return Err(bad),
        }
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Form("it is not UTF-8 once decoded"))
}

/// `key = value key = 'a \'quoted\' value'`
fn keywords(text: &str) -> Result<Pairs, UrlError> {
    let mut pairs = Pairs::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let form = UrlError::Form("it is neither a postgres:// URL nor a list of key=value");
        let (key, after) = rest.split_once('=').ok_or(form.clone())?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(form);
        }
        let (value, after) = keyword_value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A value and what comes after it. A backslash takes the next character as it is.
fn keyword_value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => value.extend(chars.next().map(|(_, next)| next)),
            '\'' if quoted => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            space if space.is_whitespace() && !quoted => {
                return Ok((value, text.get(at..).unwrap_or_default()));
            }
            other => value.push(other),
        }
    }
    if quoted {
        Err(UrlError::Form("a quoted value has no closing quote"))
    } else {
        Ok((value, ""))
    }
}
