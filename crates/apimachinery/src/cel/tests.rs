//! Expressions as they run: Kubernetes' functions, the words of errors, the bound on work.

use serde_json::json;

use super::*;

fn run(source: &str, this: &Json) -> Result<Value, EvalError> {
    let program = Program::compile(source).map_err(EvalError::Failed)?;
    let mut scope = Scope::new();
    scope.json("self", Some(this));
    program.run(&scope, &mut OBJECT_BUDGET.clone())
}

/// Each source is true.
fn holds(sources: &[&str]) {
    let this = json!({
        "a": [1, 2, 3], "s": "ab42", "d": 1.5, "labels": {"app": "web", "tier": "front"}, "text": "a-b-c",
    });
    for source in sources {
        assert_eq!(run(source, &this), Ok(Value::Bool(true)), "{source}");
    }
}

fn fails(source: &str, message: &str) {
    assert_eq!(run(source, &json!({})), Err(EvalError::Failed(message.to_owned())), "{source}");
}

#[test]
fn lists() {
    holds(&[
        "self.a.all(x, x > 0)",
        "self.a.sum() == 6 && [1.0, 3.0].sum() == 4.0 && [].sum() == 0",
        "[duration('1m'), duration('1s')].sum() == duration('1m1s')",
        "self.a.isSorted() && ![2.0, 1.0].isSorted() && ['a', 'b', 'b', 'c'].isSorted()",
        "self.a.max() == 3 && self.a.min() == 1",
        "[1, 2, 2, 3].indexOf(2) == 1 && ['a', 'b', 'b', 'c'].lastIndexOf('b') == 2 && [1.0].indexOf(1.1) == -1",
        "[1, 2, 3].includes(2) && ![1, 2, 3].includes(4) && 'm'.includes('m') && !'m'.includes('n')",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3]",
        "[[1, 2], [3]].flatten() == [1, 2, 3]",
        "[3, 1, 2].sort() == [1, 2, 3] && [1, 2, 3].reverse() == [3, 2, 1] && [1, 1, 2].distinct() == [1, 2]",
        "[{'n': 'b'}, {'n': 'a'}].sortBy(e, e.n)[0].n == 'a' && lists.range(3) == [0, 1, 2]",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![].first().hasValue()",
    ]);
    fails("[].min()", "min called on empty list");
}

#[test]
fn strings_and_regular_expressions() {
    holds(&[
        "self.s.find('[0-9]+') == '42' && self.s.find('x') == ''",
        "self.s.findAll('[a-z]').size() == 2 && '123 abc 456'.findAll('[0-9]+', 1) == ['123']",
        "'a,b'.split(',').size() == 2 && ['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'",
        "'hello'.charAt(1) == 'e' && 'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3",
        "'ab ab'.replace('ab', 'c') == 'c c' && 'ab ab'.replace('ab', 'c', 1) == 'c ab'",
        "'TacoCat'.lowerAscii() == 'tacocat' && 'a'.upperAscii() == 'A' && ' a '.trim() == 'a'",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco'",
        "'%s has %d'.format(['a', 2]) == 'a has 2' && strings.quote('a') == '\"a\"'",
        "has(self.s) && !has(self.t) && self.s.matches('^[a-z]+')",
    ]);
}

#[test]
fn quantities() {
    holds(&[
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('50k').isLessThan(quantity('50M'))",
        "isQuantity('1Gi') && !isQuantity('x') && isQuantity('1.3G')",
        "quantity('1500m').compareTo(quantity('1.5')) == 0",
        "quantity('50000000G').isInteger() && !quantity('9999999999999999999999999999999999999G').isInteger()",
        "quantity('50k').asInteger() == 50000 && quantity('50.703k').asApproximateFloat() == 50703.0",
        "quantity('50k').add(quantity('20k')) == quantity('70k') && quantity('50k').sub(20000) == quantity('30k')",
        "quantity('50').add(20) == quantity('70') && sign(quantity('-1')) == -1",
    ]);
}

#[test]
fn addresses_and_networks() {
    holds(&[
        "isIP('10.0.0.1') && ip('::1').family() == 6 && !isIP('10.0.0.256') && !isIP('::ffff:1.2.3.4')",
        "ip.isCanonical('127.0.0.1') && !ip.isCanonical('2001:db8::0') && string(ip('2001:db8::0')) == '2001:db8::'",
        "ip('0.0.0.0').isUnspecified() && ip('127.0.0.1').isLoopback() && ip('224.0.0.1').isLinkLocalMulticast()",
        "ip('169.254.169.254').isLinkLocalUnicast() && ip('192.168.0.1').isGlobalUnicast()",
        "!ip('255.255.255.255').isGlobalUnicast() && ip('127.0.0.1') == ip('127.0.0.1')",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsIP(ip('10.1.2.3'))",
        "cidr('192.168.0.0/16').containsCIDR('192.168.1.0/24') && !cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/16'))",
        "cidr('192.168.0.1/24').ip() == ip('192.168.0.1') && cidr('192.168.0.1/24').prefixLength() == 24",
        "cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24') && isCIDR('::1/128') && !isCIDR('10.0.0.0/33')",
        "string(cidr('192.168.0.0/24')) == '192.168.0.0/24'",
    ]);
    fails("ip('::ffff:1.2.3.4').family() == 4", "IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed");
}

#[test]
fn urls_and_sets() {
    holds(&[
        "isURL('https://a.b/c') && !isURL('../relative') && url('https://a.b:8/c').getHost() == 'a.b:8'",
        "url('https://[::1]:80/').getHostname() == '::1' && url('https://a:80/x').getPort() == '80'",
        "url('/path').getScheme() == '' && url('https://a/p%20q').getEscapedPath() == '/p%20q'",
        "url('https://a/?k=a&k=b%20c').getQuery()['k'] == ['a', 'b c']",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 2], [2, 1, 1]) && !sets.intersects([1], [2])",
    ]);
}

#[test]
fn versions() {
    holds(&[
        "isSemver('1.0.0') && !isSemver('hello') && !isSemver('v1.0') && isSemver('v1.0', true)",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "semver('01.01.01', true).compareTo(semver('1.1.1')) == 0",
        "semver('1.2.3').compareTo(semver('2.0.0')) == -1 && semver('1.2.3').isGreaterThan(semver('0.1.2'))",
        "semver('1.0.0-alpha').isLessThan(semver('1.0.0')) && semver('1.0.0-alpha.1').isLessThan(semver('1.0.0-beta'))",
        "semver('1.0.0-2').isLessThan(semver('1.0.0-10')) && !isSemver('1.0.0-01') && !isSemver('01.0.0')",
    ]);
}

#[test]
fn formats() {
    holds(&[
        "!format.dns1123Label().validate('my-label-name').hasValue()",
        "format.dns1123Label().validate('Not_one').hasValue()",
        "format.dns1123LabelPrefix().validate('my-label-prefix-').hasValue() == false",
        "format.named('uuid').value().validate('x').value()[0] == 'does not match the UUID format'",
        "!format.named('unknown').hasValue() && !format.date().validate('2021-01-01').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
        "!format.byte().validate('aGVsbG8=').hasValue() && !format.uri().validate('http://example.com').hasValue()",
    ]);
}

#[test]
fn optional_values() {
    holds(&[
        "self.?t.orValue('none') == 'none' && self.?s.value() == 'ab42' && !self.?t.?u.hasValue()",
        "self.labels[?'app'].orValue('') == 'web' && optional.none().or(optional.of(1)).value() == 1",
        "[?self.?s, ?self.?t].size() == 1 && {?'a': self.?t}.size() == 0",
        "self.?s.optMap(v, v + '!').value() == 'ab42!' && optional.ofNonZeroValue('').hasValue() == false",
    ]);
}

#[test]
fn comprehensions_with_two_variables() {
    holds(&[
        "[1, 2, 3].all(i, v, i < v) && ![1, 2].all(i, v, i == v)",
        "{'hello': 'world', 'taco': 'taco'}.exists(k, v, k == v) && ![1].exists(i, v, i == v)",
        "[1, 2, 1, 3].existsOne(i, v, i == 1 && v == 2) && [0, 1].exists_one(i, v, v == 1)",
        "[1, 2, 3].transformList(i, v, i * v) == [0, 2, 6]",
        "[1, 2, 3].transformList(i, v, v > 1, v * 2) == [4, 6]",
        "{'greeting': 'hi'}.transformMap(k, v, v + '!') == {'greeting': 'hi!'}",
        "self.labels.transformMap(k, v, k == 'app', v) == {'app': 'web'}",
        "{'a': 'b'}.transformMapEntry(k, v, {v: k}) == {'b': 'a'}",
        "[[1, 2], [3]].all(i, list, list.exists(j, v, v == i + j + 1 || v == 3))",
    ]);
    fails(
        "{'a': 'x', 'b': 'x'}.transformMapEntry(k, v, {v: k}) == {}",
        "insert failed: key x already exists",
    );
    let twice = Program::compile("[1].all(i, i, true)").err().expect("both have one name");
    assert!(twice.contains("duplicate variable name: i"), "{twice}");
}

#[test]
fn the_authorizer_is_asked() {
    struct Readers;
    impl Authorize for Readers {
        fn authorize(&self, question: &Question) -> Answer {
            let allowed =
                question.verb == "get" && question.resource == "pods" && question.namespace == "shop"
                    || question.path.as_deref() == Some("/healthz")
                    || question.service_account == Some(("a".to_owned(), "b".to_owned()));
            Answer { allowed, reason: "read".to_owned(), error: None }
        }
    }
    let whom: Arc<dyn Authorize> = Arc::new(Readers);
    let mut scope = Scope::new();
    scope.set("authorizer", authorizer(whom.clone()));
    let about = Question { resource: "pods".to_owned(), namespace: "shop".to_owned(), ..Question::default() };
    scope.set("authorizer.requestResource", request_resource(whom, about));
    for source in [
        "authorizer.group('').resource('pods').namespace('shop').check('get').allowed()",
        "!authorizer.group('').resource('pods').namespace('else').check('get').allowed()",
        "authorizer.requestResource.check('get').allowed()",
        "!authorizer.requestResource.name('x').check('delete').allowed()",
        "authorizer.path('/healthz').check('get').reason() == 'read'",
        "authorizer.serviceAccount('a', 'b').group('x').resource('y').subresource('z').check('*').allowed()",
        "!authorizer.path('/x').check('get').errored() && authorizer.path('/x').check('get').error() == ''",
    ] {
        let program = Program::compile(source).expect(source);
        assert_eq!(program.run(&scope, &mut OBJECT_BUDGET.clone()), Ok(Value::Bool(true)), "{source}");
    }
    let empty = Program::compile("authorizer.path(' ').check('get').allowed()").expect("it compiles");
    let error = empty.run(&scope, &mut OBJECT_BUDGET.clone());
    assert_eq!(error, Err(EvalError::Failed("path must not be empty".to_owned())));
}

#[test]
fn variables_are_computed_once_and_when_asked() {
    let object = json!({"spec": {"replicas": 3}});
    let mut scope = Scope::new();
    scope.json("object", Some(&object));
    let declared: Vec<(String, Arc<Program>)> = [
        ("replicas", "object.spec.replicas"),
        ("odd", "variables.replicas % 2 == 1"),
        ("broken", "object.missing"),
        ("itself", "variables.itself"),
    ]
    .map(|(name, source)| (name.to_owned(), Program::cached(source).expect(source)))
    .into();
    let scope = scope.with_variables(&declared);
    let run = |source: &str| Program::compile(source).expect(source).run(&scope, &mut OBJECT_BUDGET.clone());
    assert_eq!(run("variables.odd && variables.replicas == 3"), Ok(Value::Bool(true)));
    assert_eq!(
        run("variables.broken"),
        Err(EvalError::Failed(
            "composited variable \"broken\" fails to evaluate: no such key: missing".to_owned()
        ))
    );
    assert!(run("variables.itself").is_err(), "a variable does not see itself");
    assert_eq!(run("has(variables.odd) && !has(variables.none)"), Ok(Value::Bool(true)));
}

#[test]
fn what_takes_too_long_is_stopped() {
    let run = |source: &str, this: &Json| {
        let mut scope = Scope::new();
        scope.json("self", Some(this));
        let mut budget = 20_000;
        let outcome = Program::compile(source).expect(source).run(&scope, &mut budget);
        (outcome, budget)
    };
    let stops = |source: &str, this: &Json| {
        assert_eq!(run(source, this), (Err(EvalError::Budget), 0), "{source}");
    };
    let numbers: Vec<i64> = (0..200).collect();
    stops("self.all(x, self.all(y, self.all(z, x + y + z >= 0)))", &json!(numbers));
    stops("lists.range(1000000000).size() == 1", &json!(0));
    stops("self.replace('', self).size() == 1", &json!("x".repeat(2_000)));
    stops("self.map(x, self.join(x)).size() > 5", &json!(vec!["x".repeat(100); 100]));
    stops("(self + self).size() == 1", &json!("x".repeat(300_000)));
    let (outcome, left) = run("self.all(x, self.all(y, x + y >= 0))", &json!(&numbers[..20]));
    assert_eq!(outcome, Ok(Value::Bool(true)));
    assert!(left > 10_000, "four hundred sums are no thousands of steps each: {left} left");
}

#[test]
fn nested_and_broken_sources_are_errors() {
    assert!(Program::compile(&format!("{}1", "1+".repeat(8_000))).is_err());
    assert!(Program::compile(&format!("a{}", ".a".repeat(8_000))).is_err());
    assert_eq!(run(&format!("{}1 == 151", "1+".repeat(150)), &json!(0)), Ok(Value::Bool(true)));
    assert!(Program::compile(&"(".repeat(10_000)).is_err());
    assert!(Program::compile(&"!".repeat(10_000)).is_err());
    let error = Program::compile("self.").err().expect("it ends too early");
    assert!(error.starts_with("ERROR: <input>:1:6: Syntax error: "), "{error}");
    assert!(error.ends_with("\n | self.\n | .....^"), "{error}");
}

#[test]
fn errors_speak_as_cel_go_does() {
    fails("self.x == 1", "no such key: x");
    fails("1 / 0 == 1", "division by zero");
    fails("[1][3] == 1", "index out of bounds: 3");
    fails("self > 1", "no such overload");
}

#[test]
fn values_are_seen_through_their_schema() {
    let mut schema = Schema { kind: Some(Type::Object), ..Schema::default() };
    schema
        .properties
        .insert(Arc::from("a-b"), Arc::new(Schema { kind: Some(Type::Number), ..Schema::default() }));
    let seen =
        value(&json!({"a-b": 1, "hidden": 2, "metadata": {"name": "n", "labels": {}}}), Some(&schema), true);
    let Value::Map(map) = seen else { panic!("an object is a map") };
    assert_eq!(map.map.len(), 2);
    assert_eq!(map.map[&Key::String(Arc::new("a__dash__b".to_owned()))], Value::Float(1.0));
}

mod checked {
    use super::*;

    fn deployment() -> Declared {
        let replicas =
            Schema { kind: Some(Type::Integer), format: Some(Arc::from("int32")), ..Schema::default() };
        let image = Schema { kind: Some(Type::String), ..Schema::default() };
        let labels =
            Schema { kind: Some(Type::Object), additional: Some(image.clone().into()), ..Schema::default() };
        let images = Schema { kind: Some(Type::Array), items: Some(image.into()), ..Schema::default() };
        let any = Schema { int_or_string: true, ..Schema::default() };
        let object = |fields: Vec<(&str, Schema)>| Schema {
            kind: Some(Type::Object),
            properties: fields.into_iter().map(|(n, s)| (Arc::from(n), Arc::new(s))).collect(),
            ..Schema::default()
        };
        let spec =
            object(vec![("replicas", replicas), ("labels", labels), ("images", images), ("surge", any)]);
        let kind = Ty::of_kind(&Arc::new(object(vec![("spec", spec)])), "Deployment");
        let names = admission::Names { params: true, authorizer: true, patches: false };
        admission::declared(names, kind, Ty::Dyn)
    }

    fn wrong(source: &str, messages: &[&str]) {
        let error = check(source, &deployment()).expect_err(source);
        let found: Vec<&str> = error
            .lines()
            .filter_map(|line| {
                line.strip_prefix("ERROR: <input>:")?.split_once(": ").map(|(_, message)| message)
            })
            .collect();
        assert_eq!(found, messages, "{error}");
    }

    fn right(source: &str, ty: &str) {
        let found = check(source, &deployment()).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(found.to_string(), ty, "{source}");
    }

    #[test]
    fn a_comparison_of_two_types_is_told_with_its_place() {
        assert_eq!(
            check("object.spec.replicas > '1'", &deployment()),
            Err("ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
                 | object.spec.replicas > '1'\n | .....................^"
                .to_owned())
        );
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_cel_go() {
        wrong(
            "'wants ' + object.spec.replicas",
            &["found no matching overload for '_+_' applied to '(string, int)'"],
        );
        wrong("object.spec.missing", &["undefined field 'missing'"]);
        wrong("nothing == 1", &["undeclared reference to 'nothing' (in container '')"]);
        wrong("nothing(1)", &["undeclared reference to 'nothing' (in container '')"]);
        wrong("object.spec.replicas.foo", &["type 'int' does not support field selection"]);
        wrong("'a'.contains(1)", &["found no matching overload for 'contains' applied to 'string.(int)'"]);
        wrong("[1, 'a']", &["expected type 'int' but found 'string'"]);
        wrong(
            "object.spec.replicas.all(x, x)",
            &["expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"],
        );
        wrong(
            "object.spec.replicas.all(i, x, x)",
            &["expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"],
        );
        wrong(
            "object.spec.images.all(x, x > 1) || 1 == 'a'",
            &[
                "found no matching overload for '_>_' applied to '(string, int)'",
                "found no matching overload for '_==_' applied to '(int, string)'",
            ],
        );
        wrong(
            "request.userInfo.groups == ''",
            &["found no matching overload for '_==_' applied to '(list(string), string)'"],
        );
        wrong(
            "math.greatest(1, 2)",
            &[
                "undeclared reference to 'math' (in container '')",
                "undeclared reference to 'greatest' (in container '')",
            ],
        );
        wrong("Object{}", &["undeclared reference to 'Object' (in container '')"]);
        wrong(
            "jsonpatch.escapeKey('a')",
            &[
                "undeclared reference to 'jsonpatch' (in container '')",
                "undeclared reference to 'escapeKey' (in container '')",
            ],
        );
    }

    #[test]
    fn what_is_right_has_its_type() {
        right("object.spec.replicas > 1 && object.spec.surge > 'a' && oldObject == object", "bool");
        right("object.spec.replicas < 1.5", "bool");
        right("object.spec.images.map(x, x.size())", "list(int)");
        right("object.spec.images.filter(x, x != '')[0]", "string");
        right("object.spec.labels.all(k, k.startsWith('a'))", "bool");
        right("object.spec.labels.transformMap(k, v, size(v))", "map(string, int)");
        right("object.spec.images.transformList(i, v, i)", "list(int)");
        right("object.spec.labels.exists(k, v, k == v)", "bool");
        right("object.spec.?labels['a'].orValue('b')", "string");
        right("has(object.spec.replicas) ? object.spec.replicas : 1", "int");
        right("params.a.b", "dyn");
        right("params.all(x, x.y == 1)", "bool");
        right("[]", "list(dyn)");
        right("{'a': 1}", "map(string, int)");
        right("[1, dyn('a')]", "list(dyn)");
        right("type(1) == int && type(object.spec.replicas) != string", "bool");
        right("object.spec.images.sortBy(x, x.size())", "list(string)");
        right("object.spec.?labels.optMap(l, l.size())", "optional_type(int)");
        right("authorizer.group('').resource('pods').check('get').allowed()", "bool");
        right("authorizer.requestResource.check('get').reason()", "string");
        right("quantity('1').compareTo(quantity('2')) + 1", "int");
        right("null", "null");
        right("duration('1s') + timestamp('2020-01-01T00:00:00Z')", "timestamp");
        right("sets.contains([1], [2]) && lists.range(2).isSorted()", "bool");
        right("namespaceObject.metadata.labels['x'] + request.name", "string");
        right("cidr('10.0.0.0/8').containsIP(ip('10.0.0.1'))", "bool");
        right("format.named('uuid').value().validate('x')", "optional_type(list(string))");
    }

    #[test]
    fn patches_are_made_where_they_are_declared() {
        let names = admission::Names { patches: true, ..admission::Names::default() };
        let declared = admission::declared(names, Ty::Dyn, Ty::Dyn);
        let ty = |source: &str| check(source, &declared).map(|ty| ty.to_string());
        assert_eq!(ty("Object{spec: Object.spec{replicas: 3}}"), Ok("Object".to_owned()));
        let patch = "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/c'), value: object.x}]";
        assert_eq!(ty(patch), Ok("list(JSONPatch)".to_owned()));
        let error = ty("JSONPatch{op: 1}").expect_err("op is a text");
        assert!(
            error.contains("expected type of field 'op' is 'string' but provided type is 'int'"),
            "{error}"
        );
    }
}

#[test]
fn objects_of_patches_become_json() {
    let run = |source: &str| run(source, &json!({"old": "x", "a": ["y"]})).expect(source);
    let made = run(
        "Object{metadata: Object.metadata{labels: {'a': self.old}}, spec: Object.spec{?replicas: self.?n, in__dash__: 1}}",
    );
    assert_eq!(configuration(&made), Ok(json!({"metadata": {"labels": {"a": "x"}}, "spec": {"in-": 1}})));
    let made = run("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c'}]}}");
    assert_eq!(configuration(&made), Ok(json!({"spec": {"containers": [{"name": "c"}]}})));
    let error =
        configuration(&run("Object{spec: Object.wrong{}}")).expect_err("it is named for another place");
    assert!(error.contains("unexpected type name \"Object.wrong\", expected \"Object.spec\""), "{error}");
    assert!(configuration(&run("{'a': 1}")).is_err());
    let patch = run(
        "[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('b/~'), value: Object.spec.x{y: self.a}}]",
    );
    assert_eq!(operations(&patch), Ok(vec![json!({"op": "add", "path": "/a/b~1~0", "value": {"y": ["y"]}})]));
    assert!(operations(&run("[1]")).is_err());
}
