//! Reads pickles as data. Nothing in one is ever called or imported: a name that is no part of a checkpoint is refused
//! by that name, and so is every instruction that a checkpoint has no need of.
//!
//! Nodes live in one list and refer to each other by index, so neither cycles nor deep nesting can hurt, and memory grows
//! with the bytes that were read, never with a number that the file merely claims.

use std::collections::HashMap;
use std::io::Read;

/// Most bytes of one pickle. Those of checkpoints hold names and shapes only, some hundred kB.
const MOST_BYTES: u64 = 256 << 20;
/// Most values of one pickle.
const MOST_NODES: usize = 1 << 24;

/// Most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 64;
/// Longest key of a storage; they are small numbers.
const MOST_KEY: usize = 64;

/// Index of a value in [`Pickle::nodes`].
pub type Id = usize;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number that fits.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes, and whole numbers that do not fit (little-endian).
    Bytes(Vec<u8>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list or a set.
    List(Vec<Id>),
    /// A dictionary in order of insertion.
    Dict(Vec<(Id, Id)>),
    /// A name of Python's that a checkpoint may use, `torch.FloatStorage`.
    Global(String),
    /// A storage outside the pickle: kind (`FloatStorage`), key, number of elements.
    Storage(String, String, u64),
    /// A tensor: its storage, offset and shape and strides in elements.
    Tensor(Tensor),
    /// Something of no interest that was made by this name.
    Other(String),
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Kind of the storage, `FloatStorage`.
    pub kind: String,
    /// Key of the storage.
    pub storage: String,
    /// Elements that the storage has.
    pub elements: u64,
    /// First element.
    pub offset: u64,
    /// Shape.
    pub shape: Vec<u64>,
    /// Strides in elements.
    pub strides: Vec<u64>,
}

/// What a pickle holds.
#[derive(Debug)]
pub struct Pickle {
    /// Every value that was made.
    pub nodes: Vec<Node>,
    /// The value it stands for.
    pub root: Id,
}

impl Pickle {
    /// The value at an index.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// The text at an index, if it is one.
    pub fn text(&self, id: Id) -> Option<&str> {
        if let Node::Text(text) = self.node(id) { Some(text) } else { None }
    }
}

/// Names that make something which is understood, or that is not looked at but harmless to know of.
fn known(name: &str) -> bool {
    const STORAGES: [&str; 14] = [
        "Float",
        "Double",
        "Half",
        "BFloat16",
        "Long",
        "Int",
        "Short",
        "Char",
        "Byte",
        "Bool",
        "ComplexFloat",
        "ComplexDouble",
        "Untyped",
        "ComplexHalf",
    ];
    const OTHER: [&str; 24] = [
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.Counter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch.Size",
        "torch.device",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "builtins.set",
        "builtins.dict",
        "builtins.list",
        "__builtin__.set",
        "_codecs.encode",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
    ];
    const DTYPES: [&str; 12] = [
        "float32",
        "float64",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "complex64",
        "complex128",
    ];
    let storage = name.strip_prefix("torch.").and_then(|rest| rest.strip_suffix("Storage"));
    storage.is_some_and(|kind| STORAGES.contains(&kind))
        || name.strip_prefix("torch.").is_some_and(|kind| DTYPES.contains(&kind))
        || name == "numpy.dtype"
        || OTHER.contains(&name)
}

/// Why a pickle cannot be read.
pub type Problem = String;

/// Reads one pickle and stops right behind it.
///
/// # Errors
/// In words: it ends early, is damaged, too large, or asks for something that no checkpoint needs.
pub fn read(source: &mut impl Read) -> Result<Pickle, Problem> {
    Machine { source, left: MOST_BYTES, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
        .run()
}

struct Machine<'a, R> {
    source: &'a mut R,
    left: u64,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<R: Read> Machine<'_, R> {
    fn run(mut self) -> Result<Pickle, Problem> {
        loop {
            let [code] = self.array()?;
            match code {
                0x80 => {
                    let [version] = self.array()?;
                    if version > 5 {
                        return Err(format!("pickle protocol {version} is not known (2 to 5 are)"));
                    }
                }
                0x95 => drop(self.array::<8>()?),
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { nodes: self.nodes, root });
                }
                b'N' => self.push(Node::None)?,
                0x88 => self.push(Node::Bool(true))?,
                0x89 => self.push(Node::Bool(false))?,
                b'K' => {
                    let [value] = self.array()?;
                    self.push(Node::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Node::Int(value.into()))?;
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Node::Int(value.into()))?;
                }
                0x8a => {
                    let [length] = self.array()?;
                    self.long(length.into())?;
                }
                0x8b => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.long(length.into())?;
                }
                b'G' => {
                    let value = f64::from_be_bytes(self.array()?);
                    self.push(Node::Float(value))?;
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.text(length.into())?;
                }
                0x8c => {
                    let [length] = self.array()?;
                    self.text(length.into())?;
                }
                0x8d => {
                    let length = u64::from_le_bytes(self.array()?);
                    self.text(length)?;
                }
                // Texts of Python 2, in any encoding.
                b'U' => {
                    let [length] = self.array()?;
                    let bytes = self.bytes(length.into())?;
                    self.push(Node::Text(String::from_utf8_lossy(&bytes).into_owned()))?;
                }
                b'T' => {
                    let length = u32::from_le_bytes(self.array()?);
                    let bytes = self.bytes(length.into())?;
                    self.push(Node::Text(String::from_utf8_lossy(&bytes).into_owned()))?;
                }
                b'C' => {
                    let [length] = self.array()?;
                    let bytes = self.bytes(length.into())?;
                    self.push(Node::Bytes(bytes))?;
                }
                b'B' => {
                    let length = u32::from_le_bytes(self.array()?);
                    let bytes = self.bytes(length.into())?;
                    self.push(Node::Bytes(bytes))?;
                }
                b'}' => self.push(Node::Dict(Vec::new()))?,
                b']' | 0x8f => self.push(Node::List(Vec::new()))?,
                b')' => self.push(Node::Tuple(Vec::new()))?,
                b'(' => self.marks.push(self.stack.len()),
                b'0' => drop(self.pop()?),
                b'1' => drop(self.marked()?),
                b'2' => {
                    let top = *self.stack.last().ok_or("it takes a value that is not there")?;
                    self.put(top)?;
                }
                b't' => {
                    let items = self.marked()?;
                    self.push(Node::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let at = self.stack.len().checked_sub(usize::from(code) - 0x84).ok_or("its stack is too short")?;
                    let items = self.stack.split_off(at);
                    self.push(Node::Tuple(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' | 0x90 => {
                    let items = self.marked()?;
                    self.append(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.set(items)?;
                }
                b'q' => {
                    let [at] = self.array()?;
                    self.remember(at.into())?;
                }
                b'r' => {
                    let at = u32::from_le_bytes(self.array()?);
                    self.remember(at.into())?;
                }
                0x94 => self.remember(self.memo.len() as u64)?,
                b'h' => {
                    let [at] = self.array()?;
                    self.recall(at.into())?;
                }
                b'j' => {
                    let at = u32::from_le_bytes(self.array()?);
                    self.recall(at.into())?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Node::Text(module), Node::Text(name)) = (self.nodes[module].clone(), self.nodes[name].clone())
                    else {
                        return Err("it imports something that is no name".into());
                    };
                    self.global(&module, &name)?;
                }
                b'R' | 0x81 => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    let made = self.made(function, arguments)?;
                    self.push(made)?;
                }
                // The state of an object: what `__dict__` would hold. Nothing here has use for it.
                b'b' => drop(self.pop()?),
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(storage)?;
                }
                other => {
                    return Err(format!(
                        "instruction 0x{other:02x} is none that a checkpoint needs, or the file is damaged"
                    ));
                }
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut out = [0; N];
        self.left = self.left.checked_sub(N as u64).ok_or("it is longer than any checkpoint's")?;
        self.source.read_exact(&mut out).map_err(|error| cut(&error))?;
        Ok(out)
    }

    /// Bytes in pieces, so that a length that lies costs no memory.
    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, Problem> {
        self.left = self.left.checked_sub(length).ok_or("it is longer than any checkpoint's")?;
        let mut out = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut out).map_err(|error| cut(&error))?;
        if (out.len() as u64) < length {
            return Err("it ends in the middle of a text; the file was cut short".into());
        }
        Ok(out)
    }

    fn line(&mut self) -> Result<String, Problem> {
        let mut out = Vec::new();
        loop {
            let [byte] = self.array()?;
            if byte == b'\n' {
                return String::from_utf8(out).map_err(|_| "a name in it is not UTF-8".into());
            }
            out.push(byte);
            if out.len() > 1000 {
                return Err("a name in it is longer than any".into());
            }
        }
    }

    fn text(&mut self, length: u64) -> Result<(), Problem> {
        let bytes = self.bytes(length)?;
        let text = String::from_utf8(bytes).map_err(|_| "a text in it is not UTF-8")?;
        self.push(Node::Text(text))
    }

    fn long(&mut self, length: u64) -> Result<(), Problem> {
        let bytes = self.bytes(length)?;
        if bytes.len() > 8 {
            return self.push(Node::Bytes(bytes));
        }
        let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
        let mut all = [fill; 8];
        all[..bytes.len()].copy_from_slice(&bytes);
        self.push(Node::Int(i64::from_le_bytes(all)))
    }

    fn push(&mut self, node: Node) -> Result<(), Problem> {
        if self.nodes.len() >= MOST_NODES {
            return Err("it holds more values than any checkpoint".into());
        }
        self.nodes.push(node);
        self.put(self.nodes.len() - 1)
    }

    fn put(&mut self, id: Id) -> Result<(), Problem> {
        if self.stack.len() >= MOST_NODES {
            return Err("it holds more values than any checkpoint".into());
        }
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, Problem> {
        // What lies below a mark belongs to whoever set it.
        if self.marks.last().is_some_and(|&mark| self.stack.len() <= mark) {
            return Err("it takes a value that is not there".into());
        }
        self.stack.pop().ok_or_else(|| "it takes a value that is not there".into())
    }

    fn marked(&mut self) -> Result<Vec<Id>, Problem> {
        let mark = self.marks.pop().ok_or("it goes back to a mark that it never set")?;
        if mark > self.stack.len() {
            return Err("it goes back to a mark that is gone".into());
        }
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), Problem> {
        let list = *self.stack.last().ok_or("it adds to a list that is not there")?;
        match &mut self.nodes[list] {
            Node::List(list) => list.extend(items),
            Node::Other(_) => {}
            _ => return Err("it adds to a list that is none".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Id>) -> Result<(), Problem> {
        let dict = *self.stack.last().ok_or("it adds to a dictionary that is not there")?;
        if !items.len().is_multiple_of(2) {
            return Err("it adds a name without a value".into());
        }
        match &mut self.nodes[dict] {
            Node::Dict(dict) => dict.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Node::Other(_) => {}
            _ => return Err("it adds to a dictionary that is none".into()),
        }
        Ok(())
    }

    fn remember(&mut self, at: u64) -> Result<(), Problem> {
        let top = *self.stack.last().ok_or("it remembers a value that is not there")?;
        self.memo.insert(at, top);
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<(), Problem> {
        let id = *self.memo.get(&at).ok_or("it recalls a value that it never had")?;
        self.put(id)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Problem> {
        let name = format!("{module}.{name}");
        if !known(&name) {
            return Err(format!(
                "it asks for `{name}`, which no plain checkpoint needs; nothing of it was run. If the file is yours, save \
                 the weights alone: torch.save(model.state_dict(), …)"
            ));
        }
        self.push(Node::Global(name))
    }

    fn tuple(&self, id: Id) -> Result<&[Id], Problem> {
        match &self.nodes[id] {
            Node::Tuple(items) => Ok(items),
            _ => Err("it calls something with what are no arguments".into()),
        }
    }

    /// A shape or strides: few numbers from 0.
    fn numbers(&self, id: Id) -> Option<Vec<u64>> {
        let (Node::Tuple(items) | Node::List(items)) = &self.nodes[id] else { return None };
        if items.len() > MOST_DIMENSIONS {
            return None;
        }
        let number = |&id: &Id| if let Node::Int(n) = self.nodes[id] { u64::try_from(n).ok() } else { None };
        items.iter().map(number).collect()
    }

    /// What a call would give, for the few names whose meaning matters. Copies only what is small, so that a value that
    /// is named many times is not held many times.
    fn made(&mut self, function: Id, arguments: Id) -> Result<Node, Problem> {
        let Node::Global(name) = &self.nodes[function] else {
            return Err("it calls something that is no name".into());
        };
        let name = name.clone();
        let first = self.tuple(arguments)?.first().copied();
        match name.as_str() {
            "collections.OrderedDict" | "builtins.dict" | "collections.defaultdict" | "collections.Counter" => {
                // Older versions of Python wrote a list of pairs, for this call alone.
                let pairs = match first.map(|id| &mut self.nodes[id]) {
                    Some(Node::List(items)) => std::mem::take(items),
                    _ => Vec::new(),
                };
                let pair = |&item: &Id| match &self.nodes[item] {
                    Node::Tuple(pair) | Node::List(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
                    _ => None,
                };
                Ok(Node::Dict(pairs.iter().filter_map(pair).collect()))
            }
            "builtins.set" | "__builtin__.set" | "builtins.list" => Ok(Node::List(Vec::new())),
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => self.tensor(self.tuple(arguments)?),
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                match first.map(|id| &self.nodes[id]) {
                    Some(Node::Tensor(tensor)) => Ok(Node::Tensor(tensor.clone())),
                    _ => Err("it makes a parameter of what is no tensor".into()),
                }
            }
            "torch.Size" => match first.map(|id| &self.nodes[id]) {
                Some(Node::Tuple(items)) if items.len() <= MOST_DIMENSIONS => Ok(Node::Tuple(items.clone())),
                _ => Err("it makes a shape of what is none".into()),
            },
            _ => Ok(Node::Other(name)),
        }
    }

    fn tensor(&self, arguments: &[Id]) -> Result<Node, Problem> {
        let broken = || String::from("it makes a tensor of what does not make one");
        let [storage, offset, shape, strides, ..] = *arguments else { return Err(broken()) };
        let Node::Storage(kind, key, elements) = &self.nodes[storage] else { return Err(broken()) };
        let Node::Int(offset) = self.nodes[offset] else { return Err(broken()) };
        Ok(Node::Tensor(Tensor {
            kind: kind.clone(),
            storage: key.clone(),
            elements: *elements,
            offset: u64::try_from(offset).map_err(|_| broken())?,
            shape: self.numbers(shape).ok_or_else(broken)?,
            strides: self.numbers(strides).ok_or_else(broken)?,
        }))
    }

    /// ('storage', kind, key, device, elements), and in the older format a view, which has not been written for years.
    fn storage(&self, id: Id) -> Result<Node, Problem> {
        let broken = || String::from("it refers to a storage in a way that is not known");
        let Node::Tuple(parts) = &self.nodes[id] else { return Err(broken()) };
        let [word, kind, key, _, elements, ref view @ ..] = parts[..] else { return Err(broken()) };
        let (Node::Text(word), Node::Global(kind), Node::Text(key), &Node::Int(elements)) =
            (&self.nodes[word], &self.nodes[kind], &self.nodes[key], &self.nodes[elements])
        else {
            return Err(broken());
        };
        let kind = kind.strip_prefix("torch.").filter(|kind| kind.ends_with("Storage")).ok_or_else(broken)?;
        if word != "storage" || key.len() > MOST_KEY || view.iter().any(|&id| self.nodes[id] != Node::None) {
            return Err(broken());
        }
        let elements = u64::try_from(elements).map_err(|_| broken())?;
        Ok(Node::Storage(kind.into(), key.clone(), elements))
    }
}

fn cut(error: &std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it ends early; the file was cut short".into(),
        _ => format!("it cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Pickle, Problem> {
        read(&mut &bytes[..])
    }

    #[test]
    fn plain_values() {
        // {"a": [1, -2, 1.5, None, True], "b": ("x",)}
        let bytes = b"\x80\x02}(X\x01\x00\x00\x00a](K\x01J\xfe\xff\xff\xffG?\xf8\0\0\0\0\0\0N\x88eX\x01\0\0\0bX\x01\0\0\0x\x85u.";
        let pickle = of(bytes).unwrap();
        let Node::Dict(dict) = pickle.node(pickle.root) else { panic!() };
        assert_eq!(pickle.text(dict[0].0), Some("a"));
        let Node::List(list) = pickle.node(dict[0].1) else { panic!() };
        let values: Vec<&Node> = list.iter().map(|&id| pickle.node(id)).collect();
        assert_eq!(values, [&Node::Int(1), &Node::Int(-2), &Node::Float(1.5), &Node::None, &Node::Bool(true)]);
        assert!(matches!(pickle.node(dict[1].1), Node::Tuple(items) if items.len() == 1));
    }

    #[test]
    fn what_would_run_is_refused_by_name() {
        for (bytes, name) in [
            (&b"cposix\nsystem\n(X\x02\0\0\0idtR."[..], "posix.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval"),
            (b"cbuiltins\ngetattr\n.", "builtins.getattr"),
            (b"ctorch.hub\nload\n.", "torch.hub.load"),
        ] {
            let message = of(bytes).unwrap_err();
            assert!(message.contains(&format!("`{name}`")) && message.contains("nothing of it was run"), "{message}");
        }
        // INST, OBJ, EXT1 and the textual persistent id are other ways to get something called.
        for code in *b"io\x82P" {
            assert!(of(&[b'(', code]).unwrap_err().contains("none that a checkpoint needs"));
        }
        // What is called must be a name, not what a name made.
        assert!(of(b"ccollections\nOrderedDict\n)R)R.").unwrap_err().contains("no name"));
    }

    #[test]
    fn lengths_that_lie_cost_nothing() {
        assert!(of(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f").unwrap_err().contains("longer than any"));
        assert!(of(b"B\xff\xff\xff\x01abc").unwrap_err().contains("cut short"));
        assert!(of(b"\x8b\xff\xff\xff\x01").unwrap_err().contains("cut short"));
    }

    #[test]
    fn depth_and_cycles_are_harmless() {
        let mut deep = vec![b')'; 1];
        deep.extend(std::iter::repeat_n(0x85, 1_000_000));
        deep.push(b'.');
        assert_eq!(of(&deep).unwrap().nodes.len(), 1_000_001);
        // A list that holds itself.
        assert!(of(b"]q\0h\0a.").is_ok());
    }

    #[test]
    fn any_bytes_give_a_value_or_an_error() {
        let seed = b"\x80\x02}q\0(X\x01\0\0\0aq\x01ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQK\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRu.";
        let pickle = of(seed).unwrap();
        assert!(pickle.nodes.iter().any(|node| matches!(node, Node::Tensor(t) if t.shape == [2, 3])));
        for end in 0..seed.len() {
            assert!(of(&seed[..end]).is_err(), "cut at {end}");
        }
        let mut stream = harness_views::Stream::new(1, "test", "fuzz", 0, 0, 0);
        for _ in 0..50_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..=stream.below(3) {
                let at = stream.below(bytes.len() as u64) as usize;
                match stream.below(3) {
                    0 => bytes[at] = stream.below(256) as u8,
                    1 => bytes.insert(at, stream.below(256) as u8),
                    _ => drop(bytes.remove(at)),
                }
            }
            let _ = of(&bytes);
        }
    }
}
