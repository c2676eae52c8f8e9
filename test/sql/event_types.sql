-- Event types: JSON Schema on every way into a store, versions, compatibility, strict stores.
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on
SELECT es_create_store('types');
SET eventsrc.store = 'types';

SELECT es_create_event_type('Placed', json_schema => '{"type": "object", "required": ["total"], "additionalProperties": false,
    "properties": {"total": {"type": "number", "minimum": 0}, "currency": {"enum": ["EUR", "USD"]},
                   "lines": {"type": "array", "items": {"$ref": "#/definitions/line"}, "uniqueItems": true}},
    "definitions": {"line": {"type": "object", "required": ["item"], "properties": {"item": {"type": "string", "pattern": "^[A-Z]\\d+$"}, "a/b~c": {"type": "integer"}}}}}',
    description => 'an order was placed');
-- repeated, as a deployment does, it is the same version
SELECT es_create_event_type('Placed', json_schema => (SELECT json_schema FROM types.event_types));

-- what fits
SELECT version FROM es_append('Order', '1', 'Placed', '{"total": 10.5, "currency": "EUR", "lines": [{"item": "A1"}, {"item": "B22", "a/b~c": 3}]}');
SELECT version FROM es_append('Order', '1', 'Shipped', '{"any": "thing"}');
SELECT version FROM es_append('Order', '1', 'Placed', '"unchecked"', schema_version => 7);

-- what does not: the JSON pointer of what failed, and why
\set SHOW_CONTEXT never
\set VERBOSITY default
SELECT es_append('Order', '1', 'Placed', '{}');
SELECT es_append('Order', '1', 'Placed', '{"total": -1}');
SELECT es_append('Order', '1', 'Placed', '{"total": "10"}');
SELECT es_append('Order', '1', 'Placed', '{"total": 1, "currency": "XXX"}');
SELECT es_append('Order', '1', 'Placed', '{"total": 1, "lines": [{"item": "A1"}, {"item": "oops"}]}');
SELECT es_append('Order', '1', 'Placed', '{"total": 1, "lines": [{"item": "A1", "a/b~c": 1.5}]}');
SELECT es_append('Order', '1', 'Placed', '{"total": 1, "lines": [{"item": "A1"}, {"item": "A1"}]}');
SELECT es_append('Order', '1', 'Placed', '{"total": 1, "more": true}');
SELECT es_append('Order', '1', 'Placed', '[]');

-- on every way in
\set VERBOSITY sqlstate
SELECT es_append_events('Order', '1', '{Placed,Placed}', ARRAY['{"total": 1}', '{"total": false}']::jsonb[]);
SELECT es_append_batch('[{"aggregate_type": "Order", "aggregate_id": "2", "events": [{"event_type": "Placed", "data": {"total": 1}}]},
                         {"aggregate_type": "Order", "aggregate_id": "3", "events": [{"event_type": "Placed", "data": {"sum": 1}}]}]');
INSERT INTO types.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', '1', 'Placed', '{"total": null}');
COPY types.events (aggregate_type, aggregate_id, event_type, data) FROM stdin;
Order	1	Placed	{"total": []}
\.
\set VERBOSITY default
SELECT count(*) FROM types.events;
-- by the executor too: another column, a trigger, row security
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER a_trigger BEFORE INSERT ON types.events FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT es_append('Order', '1', 'Placed', '{"total": true}');
SELECT version FROM es_append('Order', '1', 'Placed', '{"total": 1}');
DROP TRIGGER a_trigger ON types.events;

-- versions: the last registered one is the default; each is checked by its own schema
SELECT es_create_event_type('Placed', json_schema => '{"required": ["amount"]}');
SELECT es_append('Order', '4', 'Placed', '{"total": 1}');
SELECT version FROM es_append('Order', '4', 'Placed', '{"amount": 1}');
SELECT version FROM es_append('Order', '4', 'Placed', '{"total": 1}', schema_version => 1);
SELECT version FROM es_append_events('Order', '4', '{Placed,Placed}', ARRAY['{"total": 1}', '{"amount": 1}']::jsonb[], schema_versions => '{1,NULL}');
INSERT INTO types.events (aggregate_type, aggregate_id, event_type, data) VALUES ('Order', '4', 'Placed', '{"amount": 2}');
SELECT version, schema_version, data FROM types.events WHERE aggregate_id = '4' ORDER BY version;
SELECT event_type, schema_version, compatibility, description FROM types.event_types ORDER BY 1, 2;

-- compatibility with the version before
SELECT es_create_event_type('Paid', json_schema => '{"type": "object", "additionalProperties": false, "required": ["sum"],
    "properties": {"sum": {"type": "integer", "maximum": 100}, "kind": {"enum": ["cash", "card"]}}}');
SELECT es_create_event_type('Paid', compatibility => 'backward', json_schema => '{"type": "object", "additionalProperties": false, "required": ["sum", "kind"],
    "properties": {"sum": {"type": "integer", "maximum": 50}, "kind": {"enum": ["cash"]}}}');
SELECT es_create_event_type('Paid', compatibility => 'backward', json_schema => '{"type": "object", "additionalProperties": false,
    "properties": {"sum": {"type": "string"}}}');
SELECT es_create_event_type('Paid', compatibility => 'forward', json_schema => '{"type": "object", "required": ["sum"],
    "properties": {"sum": {"type": "number"}, "kind": {"enum": ["cash", "card", "coin"]}}}');
SELECT es_create_event_type('Paid', compatibility => 'full', json_schema => '{"type": "object", "additionalProperties": false, "required": ["sum"],
    "properties": {"sum": {"type": "integer", "maximum": 100}, "kind": {"enum": ["card", "cash"]}, "note": {"type": "string"}}}');
SELECT es_create_event_type('Paid', compatibility => 'backward', json_schema => '{"type": "object", "additionalProperties": false, "required": ["sum"],
    "properties": {"sum": {"type": "number", "maximum": 1000}, "kind": {"enum": ["cash", "card", "coin"]}, "note": {"type": "string"}}}');
SELECT es_create_event_type('Paid', compatibility => 'forward', json_schema => '{"type": "object", "additionalProperties": false, "required": ["sum", "note"],
    "properties": {"sum": {"type": "integer", "minimum": 1, "maximum": 10}, "note": {"const": "x"}}}');

-- a schema that is none
\set VERBOSITY default
SELECT es_create_event_type('Bad', json_schema => '{"type": "objekt"}');
SELECT es_create_event_type('Bad', json_schema => '{"properties": {"a": {"minimum": "1"}}}');
SELECT es_create_event_type('Bad', json_schema => '"string"');
SELECT es_create_event_type('Bad', json_schema => '{"$ref": "https://example.com/order.json"}');
SELECT es_create_event_type('Bad', json_schema => '{"properties": {"lines": {"items": {"$ref": "https://example.com/line.json#/a"}}}}');
SELECT es_create_event_type('Bad', json_schema => '{"$ref": "#/definitions/missing"}');
SELECT es_create_event_type('Bad', json_schema => '{"$ref": "#"}');
SELECT es_create_event_type('Bad', json_schema => '{"definitions": {"a": {"allOf": [{"$ref": "#/definitions/b"}]}, "b": {"not": {"$ref": "#/definitions/a"}}}, "$ref": "#/definitions/a"}');
SELECT es_create_event_type('Bad', json_schema => '{"properties": {"a": {"pattern": "["}}}');
SELECT es_create_event_type('Bad', json_schema => '{"$schema": "https://json-schema.org/draft/2020-12/schema"}');
SELECT es_create_event_type('Bad', json_schema => '{"$schema": "http://json-schema.org/draft-04/schema#", "exclusiveMinimum": 1}');
-- a reference to a registered schema, by its $id: a copy of it is kept beside what refers to it
SELECT es_create_event_type('Currency', json_schema => '{"$id": "https://example.com/currency", "definitions": {"code": {"pattern": "^[A-Z]{3}$"}}}');
SELECT es_create_event_type('Money', json_schema => '{"$id": "https://example.com/money#", "required": ["amount"], "additionalProperties": false,
    "properties": {"amount": {"$ref": "#/definitions/positive"}, "currency": {"$ref": "currency#/definitions/code"}}, "definitions": {"positive": {"minimum": 0}}}');
SELECT es_create_event_type('Invoiced', json_schema => '{"properties": {"total": {"$ref": "https://example.com/money"}, "tax": {"$ref": "https://example.com/money"}}}');
SELECT es_create_event_type('Charged', json_schema => '{"$ref": "https://example.com/money"}');
SELECT json_schema #> '{definitions,https://example.com/money,required}' FROM types.event_types WHERE event_type = 'Charged';
-- repeated, it is the same version
SELECT es_create_event_type('Charged', json_schema => '{"$ref": "https://example.com/money"}');
-- with it gone
SELECT es_drop_event_type('Currency');
SELECT es_drop_event_type('Money');
SELECT version FROM es_append('Invoice', '1', 'Invoiced', '{"total": {"amount": 1, "currency": "EUR"}}');
SELECT version FROM es_append('Invoice', '1', 'Charged', '{"amount": 1}');
SELECT es_append('Invoice', '1', 'Invoiced', '{"total": {"amount": 1}, "tax": {"amount": -1}}');
SELECT es_append('Invoice', '1', 'Invoiced', '{"total": {"amount": 1, "currency": "euro"}}');
SELECT es_append('Invoice', '1', 'Charged', '{"sum": 1}');
SELECT es_create_event_type('Charged', compatibility => 'backward', json_schema => '{"$ref": "https://example.com/money"}');
-- a part that it has not, another draft
SELECT es_create_event_type('Currency', json_schema => '{"$id": "https://example.com/currency", "definitions": {"code": {"pattern": "^[A-Z]{3}$"}}}');
SELECT es_create_event_type('Bad', json_schema => '{"$ref": "https://example.com/currency#/definitions/name"}');
SELECT es_create_event_type('Bad', json_schema => '{"$schema": "http://json-schema.org/draft-06/schema#", "not": {"$ref": "https://example.com/currency"}}');
\set VERBOSITY sqlstate
SELECT es_create_event_type('');
SELECT es_create_event_type(NULL);
SELECT es_create_event_type('Placed', 0);
SELECT es_create_event_type('Placed', 1);
SELECT es_create_event_type('Placed', 9, compatibility => 'some');
SELECT es_create_event_type('Placed', 9, compatibility => NULL);
SELECT es_create_event_type('Placed', store => 'nowhere');
SELECT es_drop_event_type('Nothing');
SELECT es_drop_event_type('Placed', 99);
SELECT es_set_strict(NULL);

-- hard values: a depth of 10,000, regular expressions that are expensive elsewhere, numbers beyond double
SELECT es_create_event_type('Deep', json_schema => '{"additionalProperties": {"$ref": "#"}, "type": "object"}');
SET max_stack_depth = '2MB';
\set VERBOSITY terse
DO $$
BEGIN
    PERFORM es_append('Deep', '1', 'Deep', (repeat('{"a":', 10000) || '{}' || repeat('}', 10000))::jsonb);
    RAISE WARNING 'it was taken';
EXCEPTION WHEN statement_too_complex THEN
    RAISE WARNING 'it was refused';
END $$;
RESET max_stack_depth;
\set VERBOSITY sqlstate
SELECT version FROM es_append('Deep', '2', 'Deep', (repeat('{"a":', 500) || '{}' || repeat('}', 500))::jsonb);
SELECT es_create_event_type('Long', json_schema => '{"properties": {"a": {"pattern": "^(a|a|b)*$"}, "n": {"multipleOf": 0.01, "type": "number"}, "i": {"type": "integer"}}}');
SELECT version FROM es_append('Long', '1', 'Long', jsonb_build_object('a', repeat('a', 200000)));
SELECT es_append('Long', '1', 'Long', jsonb_build_object('a', repeat('a', 200000) || 'c'));
SELECT version FROM es_append('Long', '1', 'Long', '{"n": 1e400, "i": 1e400}');
SELECT version FROM es_append('Long', '1', 'Long', '{"n": 12345678901234567890123456789.01, "i": 1.0}');
SELECT es_append('Long', '1', 'Long', '{"n": 12345678901234567890123456789.011}');

-- strict: registered types and versions only
\set VERBOSITY default
SELECT es_set_strict(true);
SELECT es_append('Order', '5', 'Shipped', '{}');
SELECT es_append('Order', '5', 'Placed', '{"amount": 1}', schema_version => 3);
SELECT version FROM es_append('Order', '5', 'Placed', '{"amount": 1}');
SELECT version FROM es_close_stream('Order', '5');
SELECT es_drop_event_type('Placed', 2);
SELECT es_append('Order', '6', 'Placed', '{"amount": 1}');
SELECT es_drop_event_type('Placed');
SELECT es_append('Order', '6', 'Placed', '{"amount": 1}');
SELECT es_set_strict(false);
SELECT version FROM es_append('Order', '6', 'Placed', '{"amount": 1}');

-- a registration that is rolled back is forgotten; by hand it counts too
BEGIN;
SELECT es_create_event_type('Cancelled', json_schema => 'false');
SELECT es_append('Order', '7', 'Cancelled', '{}');
ROLLBACK;
SELECT version FROM es_append('Order', '7', 'Cancelled', '{}');
INSERT INTO types.event_types VALUES ('Cancelled', 4, 'true');
SELECT version FROM es_append('Order', '7', 'Cancelled', '{}');
TRUNCATE types.event_types;
SELECT version FROM es_append('Order', '7', 'Cancelled', '{}');
SELECT version, schema_version FROM types.events WHERE aggregate_id = '7' ORDER BY version;

-- the owner's alone
CREATE ROLE types_writer;
SELECT es_grant('types_writer', 'writer');
SELECT es_create_event_type('Refunded', json_schema => '{"required": ["sum"]}');
SET ROLE types_writer;
SELECT es_create_event_type('Refunded');
\set VERBOSITY sqlstate
SELECT es_drop_event_type('Refunded');
SELECT es_set_strict(true);
INSERT INTO types.event_types VALUES ('X', 1);
SELECT es_append('Order', '8', 'Refunded', '{}');
SELECT version FROM es_append('Order', '8', 'Refunded', '{"sum": 1}');
RESET ROLE;
BEGIN READ ONLY;
SELECT es_create_event_type('Refunded', json_schema => 'true');
ROLLBACK;
DROP OWNED BY types_writer;
DROP ROLE types_writer;
DROP FUNCTION nothing();
SELECT es_drop_store('types', 'types');
