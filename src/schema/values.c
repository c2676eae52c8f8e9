/*
 * values.c
 *		What the files of schema/ need of jsonb: parts, order, pointers.
 */
#include "eventsrc.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"

#include "schema/json_schema.h"

/*
 * es_json_is_object tells whether a value is an object.
 */
bool
es_json_is_object(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data);
}

/*
 * es_json_is_array tells whether a value is an array.
 */
bool
es_json_is_array(const JsonbValue *value)
{
	return value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data);
}

/*
 * es_json_root returns a Jsonb's root, a scalar as itself.
 */
void
es_json_root(Jsonb *jsonb, JsonbValue *value)
{
	if (JB_ROOT_IS_SCALAR(jsonb))
	{
		(void) JsonbExtractScalar(&jsonb->root, value);
		return;
	}
	value->type = jbvBinary;
	value->val.binary.data = &jsonb->root;
	value->val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
}

/*
 * es_json_member returns an object's member, NULL if it has none of the name.
 */
JsonbValue *
es_json_member(const JsonbValue *object, const char *key)
{
	return getKeyJsonValueFromContainer(object->val.binary.data, key, strlen(key), NULL);
}

/*
 * write_path appends a path as a JSON pointer.
 */
static void
write_path(StringInfo to, const EsJsonPath *path)
{
	if (path == NULL)
		return;
	check_stack_depth();
	write_path(to, path->parent);
	appendStringInfoChar(to, '/');
	if (path->key == NULL)
		appendStringInfo(to, INT64_FORMAT, path->index);
	for (int i = 0; path->key && i < path->length; i++)
	{
		if (path->key[i] == '~')
			appendStringInfoString(to, "~0");
		else if (path->key[i] == '/')
			appendStringInfoString(to, "~1");
		else
			appendStringInfoChar(to, path->key[i]);
	}
}

/*
 * es_json_path returns a path as a JSON pointer; "" is the root.
 */
char *
es_json_path(const EsJsonPath *path)
{
	StringInfoData to;

	initStringInfo(&to);
	write_path(&to, path);
	return to.data;
}

/*
 * order_of ranks types of values.
 */
static int
order_of(const JsonbValue *value)
{
	if (value->type == jbvBinary)
		return es_json_is_object(value) ? 10 : 11;
	return (int) value->type;
}

/*
 * es_json_compare orders any two values.
 */
int
es_json_compare(const JsonbValue *a, const JsonbValue *b)
{
	if (order_of(a) != order_of(b))
		return order_of(a) - order_of(b);
	switch (a->type)
	{
		case jbvNull:
			return 0;
		case jbvBool:
			return (int) a->val.boolean - (int) b->val.boolean;
		case jbvString:
			if (a->val.string.len != b->val.string.len)
				return a->val.string.len - b->val.string.len;
			return memcmp(a->val.string.val, b->val.string.val, a->val.string.len);
		case jbvNumeric:
			return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a->val.numeric),
													 NumericGetDatum(b->val.numeric)));
		default:
			return compareJsonbContainers(a->val.binary.data, b->val.binary.data);
	}
}

/*
 * es_json_equal tells whether two values are the same.
 */
bool
es_json_equal(const JsonbValue *a, const JsonbValue *b)
{
	return es_json_compare(a, b) == 0;
}
