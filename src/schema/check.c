/*
 * check.c
 *		Checks a value against the nodes of a JSON Schema.
 *
 * Numbers are compared as numeric, exactly.  The depth of a value is bounded
 * by the stack's (max_stack_depth), with an error; long checks can be
 * cancelled.
 */
#include "eventsrc.h"

#include "catalog/pg_collation.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "schema/json_schema.h"
#include "schema/json_walk.h"

/* no failure is wanted: a branch that may fail */
#define SILENT	((EsSchemaFailure *) NULL)

static bool check(const EsSchemaNode *node, const JsonbValue *value,
				  const EsJsonPath *path, EsSchemaFailure *failure);

/*
 * compare_items compares values for qsort().
 */
static int
compare_items(const void *a, const void *b)
{
	CHECK_FOR_INTERRUPTS();
	return es_json_compare(a, b);
}

/*
 * fail notes why a value does not fit, if anybody wants to know.
 */
static bool
fail(EsSchemaFailure *failure, const EsJsonPath *path, const char *keyword, const char *reason)
{
	if (failure)
	{
		failure->pointer = es_json_path(path);
		failure->keyword = keyword;
		failure->reason = pstrdup(reason);
	}
	return false;
}

/* fail with a reason that is made only if it is wanted */
#define FAIL(keyword, ...) \
	fail(failure, path, keyword, failure ? psprintf(__VA_ARGS__) : "")

/*
 * is_integer tells whether a number has no fraction; 1.0 has none.
 */
static bool
is_integer(Numeric number)
{
	return DatumGetInt32(DirectFunctionCall1(numeric_scale, NumericGetDatum(number))) == 0 ||
		DatumGetInt32(DirectFunctionCall1(numeric_min_scale, NumericGetDatum(number))) == 0;
}

/*
 * types_of returns the bits of the types that a value has; whether a number is
 * an integer only if that was asked for.
 */
static int
types_of(const JsonbValue *value, int wanted)
{
	switch (value->type)
	{
		case jbvNull:
			return ES_JSON_NULL;
		case jbvBool:
			return ES_JSON_BOOLEAN;
		case jbvString:
			return ES_JSON_STRING;
		case jbvNumeric:
			if ((wanted & ES_JSON_INTEGER) && is_integer(value->val.numeric))
				return ES_JSON_NUMBER | ES_JSON_INTEGER;
			return ES_JSON_NUMBER;
		default:
			return es_json_is_object(value) ? ES_JSON_OBJECT : ES_JSON_ARRAY;
	}
}

/*
 * type_names lists types in words.
 */
static const char *
type_names(int types)
{
	static const char *const names[] = {"null", "boolean", "object", "array", "string", "number", "integer"};
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < lengthof(names); i++)
	{
		if (types & (1 << i))
			appendStringInfo(&list, "%s%s", list.len ? " or " : "", names[i]);
	}
	return list.data;
}

/*
 * number_text returns a number as text.
 */
static const char *
number_text(Numeric number)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(number)));
}

/*
 * check_number checks the keywords about numbers.
 */
static bool
check_number(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
			 EsSchemaFailure *failure)
{
	Datum		number = NumericGetDatum(value->val.numeric);

#define COMPARE(bound)	DatumGetInt32(DirectFunctionCall2(numeric_cmp, number, NumericGetDatum(bound)))
	if (node->minimum && COMPARE(node->minimum) < 0)
		return FAIL("minimum", "the number is less than %s", number_text(node->minimum));
	if (node->maximum && COMPARE(node->maximum) > 0)
		return FAIL("maximum", "the number is greater than %s", number_text(node->maximum));
	if (node->above && COMPARE(node->above) <= 0)
		return FAIL("exclusiveMinimum", "the number is not greater than %s", number_text(node->above));
	if (node->below && COMPARE(node->below) >= 0)
		return FAIL("exclusiveMaximum", "the number is not less than %s", number_text(node->below));
#undef COMPARE
	if (node->multiple_of)
	{
		Datum		rest = DirectFunctionCall2(numeric_mod, number, NumericGetDatum(node->multiple_of));

		if (!DatumGetBool(DirectFunctionCall2(numeric_eq, rest, DirectFunctionCall1(int8_numeric, Int64GetDatum(0)))))
			return FAIL("multipleOf", "the number is no multiple of %s", number_text(node->multiple_of));
	}
	return true;
}

/*
 * check_string checks the keywords about strings.
 */
static bool
check_string(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
			 EsSchemaFailure *failure)
{
	int			bytes = value->val.string.len;

	/* characters are counted only if the number of bytes leaves it open */
	if ((node->min_length >= 0 && bytes / pg_database_encoding_max_length() < node->min_length) ||
		(node->max_length >= 0 && bytes > node->max_length))
	{
		int			length = pg_mbstrlen_with_len(value->val.string.val, bytes);

		if (node->min_length >= 0 && length < node->min_length)
			return FAIL("minLength", "the string has %d characters, fewer than " INT64_FORMAT, length, node->min_length);
		if (node->max_length >= 0 && length > node->max_length)
			return FAIL("maxLength", "the string has %d characters, more than " INT64_FORMAT, length, node->max_length);
	}
	if (node->pattern && !es_pattern_matches(node->pattern, value->val.string.val, value->val.string.len))
		return FAIL("pattern", "the string does not match the pattern");
	return true;
}

/*
 * has_duplicates tells whether an array holds a value twice.
 */
static bool
has_duplicates(const JsonbValue *value, int count)
{
	JsonbValue *items = palloc_extended(count * sizeof(JsonbValue), MCXT_ALLOC_HUGE);
	EsJsonWalk	walk;
	bool		found = false;

	es_json_walk_items(&walk, value->val.binary.data);
	for (int i = 0; i < count; i++)
		es_json_walk_next(&walk, &items[i]);
	qsort(items, count, sizeof(JsonbValue), compare_items);
	for (int i = 1; i < count && !found; i++)
		found = es_json_equal(&items[i - 1], &items[i]);
	pfree(items);
	return found;
}

/*
 * check_array checks the keywords about arrays.
 */
static bool
check_array(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
			EsSchemaFailure *failure)
{
	int			count = JsonContainerSize(value->val.binary.data);
	bool		contained = false;

	check_stack_depth();
	if (node->min_items >= 0 && count < node->min_items)
		return FAIL("minItems", "the array has %d items, fewer than " INT64_FORMAT, count, node->min_items);
	if (node->max_items >= 0 && count > node->max_items)
		return FAIL("maxItems", "the array has %d items, more than " INT64_FORMAT, count, node->max_items);

	if (node->items || node->has_tuple || node->contains)
	{
		EsJsonWalk	walk;
		JsonbValue	item;

		es_json_walk_items(&walk, value->val.binary.data);
		for (int i = 0; i < count; i++)
		{
			EsJsonPath	here = {path, NULL, 0, i};
			EsSchemaNode *of = i < node->tuple.count ? node->tuple.nodes[i] : node->items;

			CHECK_FOR_INTERRUPTS();
			es_json_walk_next(&walk, &item);
			if (of && of->never && i >= node->tuple.count && node->has_tuple)
				return FAIL("additionalItems", "the array has more than %d items", node->tuple.count);
			if (of && !check(of, &item, &here, failure))
				return false;
			if (node->contains && !contained)
				contained = check(node->contains, &item, &here, SILENT);
		}
		if (node->contains && !contained)
			return FAIL("contains", "no item of the array fits what it must contain");
	}
	if (node->unique_items && count > 1 && has_duplicates(value, count))
		return FAIL("uniqueItems", "an item occurs twice");
	return true;
}

/*
 * compare_keys orders names as jsonb orders the keys of objects.
 */
static int
compare_keys(const EsSchemaKey *a, const char *name, int length)
{
	if (a->length != length)
		return a->length - length;
	return memcmp(a->name, name, length);
}

/*
 * has_member tells whether an object has a member of the name.
 */
static bool
has_member(const JsonbValue *object, const EsSchemaKey *key)
{
	JsonbValue	found;

	return getKeyJsonValueFromContainer(object->val.binary.data, key->name, key->length, &found) != NULL;
}

/*
 * find_missing returns the first name that an object must have and has not;
 * NULL if it has them all.
 */
static const EsSchemaKey *
find_missing(const EsSchemaNode *node, JsonbContainer *object)
{
	EsJsonWalk	walk;
	int			found = 0;
	int			count = JsonContainerSize(object);

	es_json_walk_keys(&walk, object);
	for (int i = 0; i < count && found < node->nrequired; i++)
	{
		const char *name;
		int			length = es_json_walk_key(&walk, &name);
		int			order = compare_keys(&node->required[found], name, length);

		if (order < 0)
			break;
		if (order == 0)
			found++;
	}
	return found < node->nrequired ? &node->required[found] : NULL;
}

/*
 * check_other checks a member, whose name ends the path, by all keywords but
 * "properties"; known tells whether that has it.
 */
static bool
check_other(const EsSchemaNode *node, const JsonbValue *member, bool known,
			const EsJsonPath *path, EsSchemaFailure *failure)
{
	JsonbValue	name = {.type = jbvString};

	for (int i = 0; i < node->npatterns; i++)
	{
		if (!es_pattern_matches(node->patterns[i].pattern, path->key, path->length))
			continue;
		known = true;
		if (!check(node->patterns[i].node, member, path, failure))
			return false;
	}
	if (!known && node->additional_properties)
	{
		if (node->additional_properties->never)
			return FAIL("additionalProperties", "the schema does not allow this property");
		if (!check(node->additional_properties, member, path, failure))
			return false;
	}
	name.val.string.val = unconstify(char *, path->key);
	name.val.string.len = path->length;
	if (node->property_names && !check(node->property_names, &name, path, SILENT))
		return FAIL("propertyNames", "the property's name does not fit");
	return true;
}

/*
 * check_members checks an object's members one by one; they come in the order
 * that the schema's properties have too.
 */
static bool
check_members(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
			  EsSchemaFailure *failure)
{
	bool		others = node->npatterns > 0 || node->additional_properties || node->property_names;
	int			count = JsonContainerSize(value->val.binary.data);
	int			next = 0;
	EsJsonWalk	keys;
	EsJsonWalk	values;
	JsonbValue	member;

	es_json_walk_keys(&keys, value->val.binary.data);
	es_json_walk_values(&values, value->val.binary.data);
	for (int i = 0; i < count; i++)
	{
		EsJsonPath	here = {path, NULL, 0, 0};
		int			order = 1;

		CHECK_FOR_INTERRUPTS();
		here.length = es_json_walk_key(&keys, &here.key);
		while (next < node->nproperties &&
			   (order = compare_keys(&node->properties[next].key, here.key, here.length)) < 0)
			next++;
		if (next == node->nproperties)
			order = 1;
		if (order != 0 && !others)
		{
			es_json_walk_skip(&values);
			continue;
		}
		es_json_walk_next(&values, &member);
		if (order == 0 && !check(node->properties[next].node, &member, &here, failure))
			return false;
		if (others && !check_other(node, &member, order == 0, &here, failure))
			return false;
	}
	return true;
}

/*
 * check_object checks the keywords about objects.
 */
static bool
check_object(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
			 EsSchemaFailure *failure)
{
	int			count = JsonContainerSize(value->val.binary.data);

	check_stack_depth();
	if (node->nrequired > 0)
	{
		const EsSchemaKey *missing = find_missing(node, value->val.binary.data);

		if (missing)
			return FAIL("required", "the property \"%.*s\" is missing", missing->length, missing->name);
	}
	if (node->min_properties >= 0 && count < node->min_properties)
		return FAIL("minProperties", "the object has %d properties, fewer than " INT64_FORMAT, count, node->min_properties);
	if (node->max_properties >= 0 && count > node->max_properties)
		return FAIL("maxProperties", "the object has %d properties, more than " INT64_FORMAT, count, node->max_properties);
	if ((node->nproperties || node->npatterns || node->additional_properties || node->property_names) &&
		!check_members(node, value, path, failure))
		return false;
	for (int i = 0; i < node->ndependencies; i++)
	{
		const EsSchemaMember *dependency = &node->dependencies[i];

		if (!has_member(value, &dependency->key))
			continue;
		if (dependency->node && !check(dependency->node, value, path, failure))
			return false;
		for (int n = 0; n < dependency->nnames; n++)
		{
			if (!has_member(value, &dependency->names[n]))
				return FAIL("dependencies", "the property \"%.*s\" needs the property \"%.*s\"",
							dependency->key.length, dependency->key.name,
							dependency->names[n].length, dependency->names[n].name);
		}
	}
	return true;
}

/*
 * check_combined checks the keywords that combine schemas.
 */
static bool
check_combined(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
			   EsSchemaFailure *failure)
{
	int			fitting = 0;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < node->all_of.count; i++)
	{
		if (!check(node->all_of.nodes[i], value, path, failure))
			return false;
	}
	if (node->any_of.count > 0)
	{
		int			i = 0;

		while (i < node->any_of.count && !check(node->any_of.nodes[i], value, path, SILENT))
			i++;
		if (i == node->any_of.count)
			return FAIL("anyOf", "the value fits none of the %d schemas", i);
	}
	if (node->one_of.count > 0)
	{
		for (int i = 0; i < node->one_of.count; i++)
			fitting += check(node->one_of.nodes[i], value, path, SILENT) ? 1 : 0;
		if (fitting != 1)
			return FAIL("oneOf", "the value fits %d of the %d schemas, not one", fitting, node->one_of.count);
	}
	if (node->not && check(node->not, value, path, SILENT))
		return FAIL("not", "the value fits the schema that it must not fit");
	if (node->condition)
	{
		const EsSchemaNode *then = check(node->condition, value, path, SILENT) ?
			node->consequence : node->alternative;

		if (then && !check(then, value, path, failure))
			return false;
	}
	return true;
}

/*
 * is_listed tells whether a value is one of those that "enum" or "const" list.
 */
static bool
is_listed(const EsSchemaNode *node, const JsonbValue *value)
{
	for (int i = 0; i < node->nenum; i++)
	{
		if (node->enums[i].type == value->type && es_json_equal(&node->enums[i], value))
			return true;
	}
	return false;
}

/*
 * check tells whether a value fits a node.  What can lead to other nodes looks
 * at the stack and for interrupts.
 */
static bool
check(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
	  EsSchemaFailure *failure)
{
	int			types;

	while (node->has_ref)
		node = node->ref;
	if (node->never)
		return fail(failure, path, "false", "the schema allows no value here");

	types = types_of(value, node->types);
	if (node->types && !(node->types & types))
		return FAIL("type", "the value is of type %s, not %s",
					type_names(types & ~ES_JSON_INTEGER), type_names(node->types));
	if (node->has_enum && !is_listed(node, value))
		return fail(failure, path, node->is_const ? "const" : "enum",
					node->is_const ? "the value is not the one that is allowed" : "the value is none of those that are allowed");
	if (types & ES_JSON_NUMBER)
	{
		if (!check_number(node, value, path, failure))
			return false;
	}
	else if (types & ES_JSON_STRING)
	{
		if (!check_string(node, value, path, failure))
			return false;
	}
	else if (types & ES_JSON_ARRAY)
	{
		if (!check_array(node, value, path, failure))
			return false;
	}
	else if (types & ES_JSON_OBJECT)
	{
		if (!check_object(node, value, path, failure))
			return false;
	}
	return !node->combines || check_combined(node, value, path, failure);
}

/*
 * es_schema_check tells whether a value fits; if not, failure says why.
 */
bool
es_schema_check(EsSchema *schema, Jsonb *value, EsSchemaFailure *failure)
{
	JsonbValue	root;

	es_json_root(value, &root);
	return check(schema->root, &root, NULL, failure);
}

/*
 * es_schema_node_accepts tells whether a value fits a part of a schema.
 */
bool
es_schema_node_accepts(const EsSchemaNode *node, const JsonbValue *value)
{
	return check(node, value, NULL, SILENT);
}
