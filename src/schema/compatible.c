/*
 * compatible.c
 *		Whether a JSON Schema accepts all that another accepts.
 *
 * The question has no exact answer in general.  This one errs on the safe
 * side: what cannot be shown to do no harm is named.
 */
#include "eventsrc.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "schema/json_schema.h"

/* findings that are listed at most */
#define MAX_FINDINGS	20

typedef struct Comparison
{
	StringInfoData findings;
	int			nfindings;
	List	   *compared;		/* pairs of nodes, one after the other */
} Comparison;

/* what stands for a keyword that is not there */
static EsSchemaNode anything = {
	.min_length = -1,.max_length = -1,.min_items = -1,.max_items = -1,
	.min_properties = -1,.max_properties = -1,
};

static void compare(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide,
					const EsJsonPath *path);

/*
 * find notes a difference.
 */
static void
find(Comparison *comparison, const EsJsonPath *path, const char *keyword, const char *what)
{
	if (++comparison->nfindings > MAX_FINDINGS)
		return;
	appendStringInfo(&comparison->findings, "%s\"%s\" (%s): %s", comparison->nfindings > 1 ? "; " : "",
					 es_json_path(path), keyword, what);
}

/*
 * or_anything returns the node that stands for a missing keyword.
 */
static EsSchemaNode *
or_anything(EsSchemaNode *node)
{
	return node ? node : &anything;
}

/*
 * has_reference tells whether a schema's text holds a $ref.
 */
static bool
has_reference(const JsonbValue *source)
{
	JsonbIterator *iterator;
	JsonbValue	value;
	JsonbIteratorToken token;

	if (source->type != jbvBinary)
		return false;
	iterator = JsonbIteratorInit(source->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		if (token == WJB_KEY && value.val.string.len == 4 && memcmp(value.val.string.val, "$ref", 4) == 0)
			return true;
	}
	return false;
}

/*
 * same_keyword tells whether a keyword is the same in both schemas.
 */
static bool
same_keyword(const EsSchemaNode *narrow, const EsSchemaNode *wide, const char *keyword)
{
	JsonbValue *one = es_json_is_object(&narrow->source) ? es_json_member(&narrow->source, keyword) : NULL;
	JsonbValue *other = es_json_is_object(&wide->source) ? es_json_member(&wide->source, keyword) : NULL;

	return one && other && es_json_equal(one, other) && !has_reference(one);
}

/*
 * need_same notes a keyword of the wide schema that the narrow one has not, or
 * has with other content.
 */
static void
need_same(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide, const char *keyword,
		  bool there, const EsJsonPath *path)
{
	if (there && !same_keyword(narrow, wide, keyword))
		find(comparison, path, keyword, "it is new or changed");
}

/*
 * order_numbers compares two numbers.
 */
static int
order_numbers(Numeric a, Numeric b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, NumericGetDatum(a), NumericGetDatum(b)));
}

/*
 * compare_numbers compares the keywords about numbers.
 */
static void
compare_numbers(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide, const EsJsonPath *path)
{
	if (wide->minimum &&
		!(narrow->minimum && order_numbers(narrow->minimum, wide->minimum) >= 0) &&
		!(narrow->above && order_numbers(narrow->above, wide->minimum) >= 0))
		find(comparison, path, "minimum", "smaller numbers were accepted");
	if (wide->above &&
		!(narrow->minimum && order_numbers(narrow->minimum, wide->above) > 0) &&
		!(narrow->above && order_numbers(narrow->above, wide->above) >= 0))
		find(comparison, path, "exclusiveMinimum", "smaller numbers were accepted");
	if (wide->maximum &&
		!(narrow->maximum && order_numbers(narrow->maximum, wide->maximum) <= 0) &&
		!(narrow->below && order_numbers(narrow->below, wide->maximum) <= 0))
		find(comparison, path, "maximum", "greater numbers were accepted");
	if (wide->below &&
		!(narrow->maximum && order_numbers(narrow->maximum, wide->below) < 0) &&
		!(narrow->below && order_numbers(narrow->below, wide->below) <= 0))
		find(comparison, path, "exclusiveMaximum", "greater numbers were accepted");
	need_same(comparison, narrow, wide, "multipleOf", wide->multiple_of != NULL, path);
}

/*
 * compare_counts compares a pair of keywords that bound a count.
 */
static void
compare_counts(Comparison *comparison, const EsJsonPath *path, const char *least, int64 narrow_least,
			   int64 wide_least, const char *most, int64 narrow_most, int64 wide_most)
{
	if (wide_least > 0 && narrow_least < wide_least)
		find(comparison, path, least, "fewer were accepted");
	if (wide_most >= 0 && (narrow_most < 0 || narrow_most > wide_most))
		find(comparison, path, most, "more were accepted");
}

/*
 * compare_arrays compares the keywords about arrays.
 */
static void
compare_arrays(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide, const EsJsonPath *path)
{
	EsJsonPath	items = {path, "items", 5, 0};
	int			count = Max(narrow->tuple.count, wide->tuple.count);

	compare_counts(comparison, path, "minItems", narrow->min_items, wide->min_items,
				   "maxItems", narrow->max_items, wide->max_items);
	if (wide->unique_items && !narrow->unique_items)
		find(comparison, path, "uniqueItems", "duplicates were accepted");
	need_same(comparison, narrow, wide, "contains", wide->contains != NULL, path);

	/* the items of tuples, then all others */
	for (int i = 0; i <= count; i++)
	{
		EsJsonPath	here = {&items, NULL, 0, i};
		EsSchemaNode *one = i < narrow->tuple.count ? narrow->tuple.nodes[i] : or_anything(narrow->items);
		EsSchemaNode *other = i < wide->tuple.count ? wide->tuple.nodes[i] : or_anything(wide->items);

		compare(comparison, one, other, i < count ? &here : &items);
	}
}

/*
 * find_member finds a member of the name.
 */
static EsSchemaMember *
find_member(EsSchemaMember *members, int count, const EsSchemaKey *key)
{
	for (int i = 0; i < count; i++)
	{
		if (members[i].key.length == key->length && memcmp(members[i].key.name, key->name, key->length) == 0)
			return &members[i];
	}
	return NULL;
}

/*
 * property_node returns a node that accepts all that a schema accepts for a
 * property, or more.
 */
static EsSchemaNode *
property_node(EsSchemaNode *node, const EsSchemaKey *key)
{
	EsSchemaMember *member = find_member(node->properties, node->nproperties, key);

	if (member)
		return member->node;
	for (int i = 0; i < node->npatterns; i++)
	{
		if (es_pattern_matches(node->patterns[i].pattern, key->name, key->length))
			return node->patterns[i].node;
	}
	return or_anything(node->additional_properties);
}

/*
 * compare_property compares what both schemas say of one property.
 */
static void
compare_property(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide,
				 const EsSchemaKey *key, const EsJsonPath *path)
{
	EsJsonPath	outer = {path, "properties", 10, 0};
	EsJsonPath	here = {&outer, key->name, key->length, 0};
	EsSchemaNode *accepted = property_node(narrow, key);
	EsSchemaMember *member = find_member(wide->properties, wide->nproperties, key);
	bool		known = (member != NULL);

	if (member)
		compare(comparison, accepted, member->node, &here);
	for (int i = 0; i < wide->npatterns; i++)
	{
		if (es_pattern_matches(wide->patterns[i].pattern, key->name, key->length))
		{
			known = true;
			compare(comparison, accepted, wide->patterns[i].node, &here);
		}
	}
	if (!known && wide->additional_properties)
		compare(comparison, accepted, wide->additional_properties, &here);
}

/*
 * compare_other_properties compares what the schemas say of properties that
 * neither names.
 */
static void
compare_other_properties(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide,
						 const EsJsonPath *path)
{
	EsJsonPath	additional = {path, "additionalProperties", 20, 0};
	EsJsonPath	patterns = {path, "patternProperties", 17, 0};

	for (int i = 0; i < wide->npatterns; i++)
	{
		EsSchemaMember *pattern = &wide->patterns[i];
		EsSchemaMember *same = find_member(narrow->patterns, narrow->npatterns, &pattern->key);
		EsJsonPath	here = {&patterns, pattern->key.name, pattern->key.length, 0};

		if (same)
		{
			compare(comparison, same->node, pattern->node, &here);
			continue;
		}
		for (int j = 0; j < narrow->npatterns; j++)
			compare(comparison, narrow->patterns[j].node, pattern->node, &here);
		compare(comparison, or_anything(narrow->additional_properties), pattern->node, &here);
	}
	if (wide->additional_properties == NULL)
		return;
	for (int i = 0; i < narrow->npatterns; i++)
	{
		EsSchemaMember *pattern = &narrow->patterns[i];
		EsJsonPath	here = {&patterns, pattern->key.name, pattern->key.length, 0};

		if (!find_member(wide->patterns, wide->npatterns, &pattern->key))
			compare(comparison, pattern->node, wide->additional_properties, &here);
	}
	compare(comparison, or_anything(narrow->additional_properties), wide->additional_properties, &additional);
}

/*
 * compare_objects compares the keywords about objects.
 */
static void
compare_objects(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide, const EsJsonPath *path)
{
	for (int i = 0; i < wide->nrequired; i++)
	{
		EsJsonPath	outer = {path, "properties", 10, 0};
		EsJsonPath	here = {&outer, wide->required[i].name, wide->required[i].length, 0};
		bool		found = false;

		for (int n = 0; n < narrow->nrequired && !found; n++)
			found = narrow->required[n].length == wide->required[i].length &&
				memcmp(narrow->required[n].name, wide->required[i].name, wide->required[i].length) == 0;
		if (!found)
			find(comparison, &here, "required", "the property could be missing");
	}
	compare_counts(comparison, path, "minProperties", narrow->min_properties, wide->min_properties,
				   "maxProperties", narrow->max_properties, wide->max_properties);
	for (int i = 0; i < wide->nproperties; i++)
		compare_property(comparison, narrow, wide, &wide->properties[i].key, path);
	for (int i = 0; i < narrow->nproperties; i++)
	{
		if (!find_member(wide->properties, wide->nproperties, &narrow->properties[i].key))
			compare_property(comparison, narrow, wide, &narrow->properties[i].key, path);
	}
	compare_other_properties(comparison, narrow, wide, path);
	need_same(comparison, narrow, wide, "dependencies", wide->ndependencies > 0, path);
	need_same(comparison, narrow, wide, "propertyNames", wide->property_names != NULL, path);
}

/*
 * was_compared tells whether a pair of nodes was, or is being, compared; notes
 * it.
 */
static bool
was_compared(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide)
{
	for (int i = 0; i < list_length(comparison->compared); i += 2)
	{
		if (list_nth(comparison->compared, i) == narrow && list_nth(comparison->compared, i + 1) == wide)
			return true;
	}
	comparison->compared = lappend(lappend(comparison->compared, narrow), wide);
	return false;
}

/*
 * compare_listed compares the values that the narrow schema lists with the
 * wide one: exactly.
 */
static void
compare_listed(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide, const EsJsonPath *path)
{
	for (int i = 0; i < narrow->nenum; i++)
	{
		if (es_schema_node_accepts(narrow, &narrow->enums[i]) && !es_schema_node_accepts(wide, &narrow->enums[i]))
		{
			find(comparison, path, narrow->is_const ? "const" : "enum", "a value that was accepted is so no more");
			return;
		}
	}
}

/*
 * compare notes what the narrow node accepts and the wide one might not.
 */
static void
compare(Comparison *comparison, EsSchemaNode *narrow, EsSchemaNode *wide, const EsJsonPath *path)
{
	int			types;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	while (narrow->has_ref)
		narrow = narrow->ref;
	while (wide->has_ref)
		wide = wide->ref;
	if (narrow == wide || narrow->never || comparison->nfindings > MAX_FINDINGS)
		return;
	if (wide->never)
	{
		find(comparison, path, "false", "values were accepted");
		return;
	}
	if (was_compared(comparison, narrow, wide))
		return;
	if (narrow->has_enum)
	{
		compare_listed(comparison, narrow, wide, path);
		return;
	}

	for (int i = 0; i < wide->all_of.count; i++)
		compare(comparison, narrow, wide->all_of.nodes[i], path);
	need_same(comparison, narrow, wide, "anyOf", wide->any_of.count > 0, path);
	need_same(comparison, narrow, wide, "oneOf", wide->one_of.count > 0, path);
	need_same(comparison, narrow, wide, "not", wide->not != NULL, path);
	if (wide->condition &&
		!(same_keyword(narrow, wide, "if") &&
		  (wide->consequence == NULL || same_keyword(narrow, wide, "then")) &&
		  (wide->alternative == NULL || same_keyword(narrow, wide, "else"))))
		find(comparison, path, "if", "it is new or changed");
	if (wide->has_enum)
	{
		find(comparison, path, wide->is_const ? "const" : "enum", "other values were accepted");
		return;
	}

	types = narrow->types ? narrow->types : 0x7F;
	if (wide->types)
	{
		int			accepted = wide->types | (wide->types & ES_JSON_NUMBER ? ES_JSON_INTEGER : 0);

		if (types & ~accepted)
			find(comparison, path, "type", "other types were accepted");
		types &= accepted;
	}
	if (types & (ES_JSON_NUMBER | ES_JSON_INTEGER))
		compare_numbers(comparison, narrow, wide, path);
	if (types & ES_JSON_STRING)
	{
		compare_counts(comparison, path, "minLength", narrow->min_length, wide->min_length,
					   "maxLength", narrow->max_length, wide->max_length);
		need_same(comparison, narrow, wide, "pattern", wide->pattern != NULL, path);
	}
	if (types & ES_JSON_ARRAY)
		compare_arrays(comparison, narrow, wide, path);
	if (types & ES_JSON_OBJECT)
		compare_objects(comparison, narrow, wide, path);
}

/*
 * es_schema_breaks says what keeps the wide schema from accepting all that the
 * narrow one accepts; NULL if nothing does.
 */
char *
es_schema_breaks(EsSchema *narrow, EsSchema *wide)
{
	Comparison	comparison = {0};

	initStringInfo(&comparison.findings);
	compare(&comparison, narrow ? narrow->root : &anything, wide ? wide->root : &anything, NULL);
	if (comparison.nfindings > MAX_FINDINGS)
		appendStringInfo(&comparison.findings, "; and more");
	return comparison.nfindings > 0 ? comparison.findings.data : NULL;
}
