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
			if ((wanted & ES_JSON_INTEGER) &&
				DatumGetInt32(DirectFunctionCall1(numeric_min_scale, NumericGetDatum(value->val.numeric))) == 0)
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
	if (node->min_length >= 0 || node->max_length >= 0)
	{
		int			length = pg_mbstrlen_with_len(value->val.string.val, value->val.string.len);

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
	JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbValue	item;
	int			n = 0;
	bool		found = false;

	(void) JsonbIteratorNext(&iterator, &item, false);
	while (n < count && JsonbIteratorNext(&iterator, &item, true) == WJB_ELEM)
		items[n++] = item;
	qsort(items, n, sizeof(JsonbValue), compare_items);
	for (int i = 1; i < n && !found; i++)
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

	if (node->min_items >= 0 && count < node->min_items)
		return FAIL("minItems", "the array has %d items, fewer than " INT64_FORMAT, count, node->min_items);
	if (node->max_items >= 0 && count > node->max_items)
		return FAIL("maxItems", "the array has %d items, more than " INT64_FORMAT, count, node->max_items);

	if (node->items || node->has_tuple || node->contains)
	{
		JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
		JsonbValue	item;
		int			i = 0;

		(void) JsonbIteratorNext(&iterator, &item, false);
		while (JsonbIteratorNext(&iterator, &item, true) == WJB_ELEM)
		{
			EsJsonPath	here = {path, NULL, 0, i};
			EsSchemaNode *of = i < node->tuple.count ? node->tuple.nodes[i] : node->items;

			if (of && of->never && i >= node->tuple.count && node->has_tuple)
				return FAIL("additionalItems", "the array has more than %d items", node->tuple.count);
			if (of && !check(of, &item, &here, failure))
				return false;
			if (node->contains && !contained)
				contained = check(node->contains, &item, &here, SILENT);
			i++;
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
 * check_members checks an object's members one by one; they come in the order
 * that the schema's properties have too.
 */
static bool
check_members(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
			  EsSchemaFailure *failure)
{
	JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbValue	key;
	JsonbValue	member;
	int			next = 0;

	(void) JsonbIteratorNext(&iterator, &key, false);
	while (JsonbIteratorNext(&iterator, &key, true) == WJB_KEY)
	{
		const char *name = key.val.string.val;
		int			length = key.val.string.len;
		EsJsonPath	here = {path, name, length, 0};
		bool		known = false;

		(void) JsonbIteratorNext(&iterator, &member, true);
		while (next < node->nproperties && compare_keys(&node->properties[next].key, name, length) < 0)
			next++;
		if (next < node->nproperties && compare_keys(&node->properties[next].key, name, length) == 0)
		{
			known = true;
			if (!check(node->properties[next].node, &member, &here, failure))
				return false;
		}
		for (int i = 0; i < node->npatterns; i++)
		{
			if (!es_pattern_matches(node->patterns[i].pattern, name, length))
				continue;
			known = true;
			if (!check(node->patterns[i].node, &member, &here, failure))
				return false;
		}
		if (!known && node->additional_properties)
		{
			if (node->additional_properties->never)
				return fail(failure, &here, "additionalProperties", "the schema does not allow this property");
			if (!check(node->additional_properties, &member, &here, failure))
				return false;
		}
		if (node->property_names && !check(node->property_names, &key, &here, SILENT))
			return fail(failure, &here, "propertyNames", "the property's name does not fit");
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

	for (int i = 0; i < node->nrequired; i++)
	{
		if (!has_member(value, &node->required[i]))
			return FAIL("required", "the property \"%.*s\" is missing", node->required[i].length,
						node->required[i].name);
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
 * check tells whether a value fits a node.
 */
static bool
check(const EsSchemaNode *node, const JsonbValue *value, const EsJsonPath *path,
	  EsSchemaFailure *failure)
{
	int			types;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	while (node->has_ref)
		node = node->ref;
	if (node->never)
		return fail(failure, path, "false", "the schema allows no value here");

	types = types_of(value, node->types);
	if (node->types && !(node->types & types))
		return FAIL("type", "the value is of type %s, not %s",
					type_names(types & ~ES_JSON_INTEGER), type_names(node->types));
	if (node->has_enum)
	{
		int			i = 0;

		while (i < node->nenum && !es_json_equal(&node->enums[i], value))
			i++;
		if (i == node->nenum)
			return fail(failure, path, node->is_const ? "const" : "enum",
						node->is_const ? "the value is not the one that is allowed" : "the value is none of those that are allowed");
	}
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
	return check_combined(node, value, path, failure);
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
