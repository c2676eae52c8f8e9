/*
 * compile.c
 *		A JSON Schema as a graph of nodes, made once and used for many checks.
 *
 * A schema is first checked against its draft's metaschema, so what is made
 * here is known to be well-formed.
 */
#include "eventsrc.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "schema/json_schema.h"

/* an entry of the compiler's nodes */
typedef struct NodeEntry
{
	void	   *source;			/* hash key */
	EsSchemaNode *node;
	char	   *base;
} NodeEntry;

static EsSchemaNode *make_node(EsSchemaCompiler *compiler, const JsonbValue *source,
							   const char *base, const EsJsonPath *path);

/*
 * member_node makes the node of a keyword that holds a schema; NULL if the
 * keyword is not there.
 */
static EsSchemaNode *
member_node(EsSchemaCompiler *compiler, const JsonbValue *source, const char *keyword,
			const char *base, const EsJsonPath *path)
{
	JsonbValue *value = es_json_member(source, keyword);
	EsJsonPath	here = {path, keyword, strlen(keyword), 0};

	return value ? make_node(compiler, value, base, &here) : NULL;
}

/*
 * node_list makes the nodes of an array of schemas.
 */
static void
node_list(EsSchemaCompiler *compiler, const JsonbValue *array, const char *base,
		  const EsJsonPath *path, EsSchemaList *list)
{
	list->count = JsonContainerSize(array->val.binary.data);
	list->nodes = palloc(Max(list->count, 1) * sizeof(EsSchemaNode *));
	for (int i = 0; i < list->count; i++)
	{
		EsJsonPath	here = {path, NULL, 0, i};

		list->nodes[i] = make_node(compiler, getIthJsonbValueFromContainer(array->val.binary.data, i),
								   base, &here);
	}
}

/*
 * member_list makes the nodes of a keyword that holds an array of schemas.
 */
static void
member_list(EsSchemaCompiler *compiler, const JsonbValue *source, const char *keyword,
			const char *base, const EsJsonPath *path, EsSchemaList *list)
{
	JsonbValue *value = es_json_member(source, keyword);
	EsJsonPath	here = {path, keyword, strlen(keyword), 0};

	if (value && es_json_is_array(value))
		node_list(compiler, value, base, &here, list);
}

/*
 * read_names reads an array of strings.
 */
static EsSchemaKey *
read_names(const JsonbValue *array, int *count)
{
	EsSchemaKey *names;

	*count = JsonContainerSize(array->val.binary.data);
	names = palloc(Max(*count, 1) * sizeof(EsSchemaKey));
	for (int i = 0; i < *count; i++)
	{
		JsonbValue *name = getIthJsonbValueFromContainer(array->val.binary.data, i);

		names[i].name = name->val.string.val;
		names[i].length = name->val.string.len;
	}
	return names;
}

/*
 * members makes the nodes of a keyword that holds schemas by name.
 */
static EsSchemaMember *
members(EsSchemaCompiler *compiler, const JsonbValue *source, const char *keyword,
		const char *base, const EsJsonPath *path, int *count)
{
	JsonbValue *object = es_json_member(source, keyword);
	EsJsonPath	outer = {path, keyword, strlen(keyword), 0};
	EsSchemaMember *result;
	JsonbIterator *iterator;
	JsonbValue	value;
	int			n = 0;

	*count = 0;
	if (object == NULL || !es_json_is_object(object))
		return NULL;
	result = palloc0(Max(JsonContainerSize(object->val.binary.data), 1) * sizeof(EsSchemaMember));
	iterator = JsonbIteratorInit(object->val.binary.data);
	(void) JsonbIteratorNext(&iterator, &value, false);
	while (JsonbIteratorNext(&iterator, &value, true) == WJB_KEY)
	{
		EsSchemaMember *member = &result[n++];
		EsJsonPath	here = {&outer, value.val.string.val, value.val.string.len, 0};

		member->key.name = value.val.string.val;
		member->key.length = value.val.string.len;
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (es_json_is_array(&value))
			member->names = read_names(&value, &member->nnames);
		else
			member->node = make_node(compiler, &value, base, &here);
		if (strcmp(keyword, "patternProperties") == 0)
			member->pattern = es_pattern_make(member->key.name, member->key.length, &here);
	}
	*count = n;
	return result;
}

/*
 * read_number reads a keyword that holds a number, else NULL.
 */
static Numeric
read_number(const JsonbValue *source, const char *keyword)
{
	JsonbValue *value = es_json_member(source, keyword);

	return value && value->type == jbvNumeric ? value->val.numeric : NULL;
}

/*
 * read_count reads a keyword that holds a count; -1 if it is not there or
 * beyond anything that can be counted.
 */
static int64
read_count(const JsonbValue *source, const char *keyword)
{
	Numeric		number = read_number(source, keyword);
	Datum		limit = DirectFunctionCall1(int8_numeric, Int64GetDatum(PG_INT64_MAX));

	if (number == NULL ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, NumericGetDatum(number), limit)))
		return -1;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(number)));
}

/*
 * read_true tells whether a keyword is there and true.
 */
static bool
read_true(const JsonbValue *source, const char *keyword)
{
	JsonbValue *value = es_json_member(source, keyword);

	return value && value->type == jbvBool && value->val.boolean;
}

/*
 * type_bit returns the bits of a type's name.
 */
static int
type_bit(const JsonbValue *name)
{
	static const struct
	{
		const char *name;
		int			bit;
	}			types[] = {
		{"null", ES_JSON_NULL}, {"boolean", ES_JSON_BOOLEAN}, {"object", ES_JSON_OBJECT},
		{"array", ES_JSON_ARRAY}, {"string", ES_JSON_STRING},
		{"number", ES_JSON_NUMBER}, {"integer", ES_JSON_INTEGER},
	};

	for (int i = 0; name->type == jbvString && i < lengthof(types); i++)
	{
		if (name->val.string.len == strlen(types[i].name) &&
			memcmp(name->val.string.val, types[i].name, name->val.string.len) == 0)
			return types[i].bit;
	}
	return 0;
}

/*
 * read_types reads the keyword "type".
 */
static int
read_types(const JsonbValue *source)
{
	JsonbValue *value = es_json_member(source, "type");
	int			types = 0;

	if (value == NULL)
		return 0;
	if (!es_json_is_array(value))
		return type_bit(value);
	for (int i = 0; i < JsonContainerSize(value->val.binary.data); i++)
		types |= type_bit(getIthJsonbValueFromContainer(value->val.binary.data, i));
	return types;
}

/*
 * read_bounds reads the bounds of numbers, which draft 4 writes otherwise.
 */
static void
read_bounds(EsSchemaNode *node, const JsonbValue *source, int draft)
{
	node->minimum = read_number(source, "minimum");
	node->maximum = read_number(source, "maximum");
	node->multiple_of = read_number(source, "multipleOf");
	if (draft > 4)
	{
		node->above = read_number(source, "exclusiveMinimum");
		node->below = read_number(source, "exclusiveMaximum");
		return;
	}
	if (read_true(source, "exclusiveMinimum"))
	{
		node->above = node->minimum;
		node->minimum = NULL;
	}
	if (read_true(source, "exclusiveMaximum"))
	{
		node->below = node->maximum;
		node->maximum = NULL;
	}
}

/*
 * read_values reads "enum" and "const".
 */
static void
read_values(EsSchemaNode *node, const JsonbValue *source, int draft)
{
	JsonbValue *value = draft > 4 ? es_json_member(source, "const") : NULL;

	if (value)
	{
		node->has_enum = node->is_const = true;
		node->nenum = 1;
		node->enums = value;
		return;
	}
	value = es_json_member(source, "enum");
	if (value == NULL || !es_json_is_array(value))
		return;
	node->has_enum = true;
	node->nenum = JsonContainerSize(value->val.binary.data);
	node->enums = palloc(Max(node->nenum, 1) * sizeof(JsonbValue));
	for (int i = 0; i < node->nenum; i++)
		node->enums[i] = *getIthJsonbValueFromContainer(value->val.binary.data, i);
}

/*
 * read_array reads the keywords about arrays.
 */
static void
read_array(EsSchemaCompiler *compiler, EsSchemaNode *node, const char *base, const EsJsonPath *path)
{
	JsonbValue *items = es_json_member(&node->source, "items");
	EsJsonPath	here = {path, "items", 5, 0};

	if (items && es_json_is_array(items))
	{
		node->has_tuple = true;
		node_list(compiler, items, base, &here, &node->tuple);
		node->items = member_node(compiler, &node->source, "additionalItems", base, path);
	}
	else if (items)
		node->items = make_node(compiler, items, base, &here);
	if (compiler->schema->draft > 4)
		node->contains = member_node(compiler, &node->source, "contains", base, path);
	node->min_items = read_count(&node->source, "minItems");
	node->max_items = read_count(&node->source, "maxItems");
	node->unique_items = read_true(&node->source, "uniqueItems");
}

/*
 * compare_names orders names as jsonb orders the keys of objects, for qsort().
 */
static int
compare_names(const void *a, const void *b)
{
	const EsSchemaKey *one = a;
	const EsSchemaKey *other = b;

	if (one->length != other->length)
		return one->length - other->length;
	return memcmp(one->name, other->name, one->length);
}

/*
 * read_object reads the keywords about objects.
 */
static void
read_object(EsSchemaCompiler *compiler, EsSchemaNode *node, const char *base, const EsJsonPath *path)
{
	const JsonbValue *source = &node->source;
	JsonbValue *required = es_json_member(source, "required");

	if (required && es_json_is_array(required))
	{
		node->required = read_names(required, &node->nrequired);
		qsort(node->required, node->nrequired, sizeof(EsSchemaKey), compare_names);
	}
	node->min_properties = read_count(source, "minProperties");
	node->max_properties = read_count(source, "maxProperties");
	node->properties = members(compiler, source, "properties", base, path, &node->nproperties);
	node->patterns = members(compiler, source, "patternProperties", base, path, &node->npatterns);
	node->additional_properties = member_node(compiler, source, "additionalProperties", base, path);
	node->dependencies = members(compiler, source, "dependencies", base, path, &node->ndependencies);
	if (compiler->schema->draft > 4)
		node->property_names = member_node(compiler, source, "propertyNames", base, path);
}

/*
 * fill reads a node's keywords.
 */
static void
fill(EsSchemaCompiler *compiler, EsSchemaNode *node, const char *base, const EsJsonPath *path)
{
	const JsonbValue *source = &node->source;
	int			draft = compiler->schema->draft;
	JsonbValue *value = es_json_member(source, "$ref");
	EsJsonPath	pattern = {path, "pattern", 7, 0};
	int			definitions;

	if (value && value->type == jbvString)
	{
		/* what stands beside it does not count, but can be referred to */
		node->has_ref = true;
		node->ref_uri = es_schema_resolve_uri(base, value->val.string.val, value->val.string.len);
		node->ref_place = es_json_path(path);
		compiler->pending = lappend(compiler->pending, node);
		(void) members(compiler, source, "definitions", base, path, &definitions);
		return;
	}
	value = es_json_member(source, draft > 4 ? "$id" : "id");
	if (value && value->type == jbvString)
	{
		char	   *uri = es_schema_resolve_uri(base, value->val.string.val, value->val.string.len);

		es_schema_add_document(compiler, uri, source);
		base = pnstrdup(uri, strcspn(uri, "#"));
	}

	node->types = read_types(source);
	read_values(node, source, draft);
	read_bounds(node, source, draft);
	node->min_length = read_count(source, "minLength");
	node->max_length = read_count(source, "maxLength");
	value = es_json_member(source, "pattern");
	if (value && value->type == jbvString)
		node->pattern = es_pattern_make(value->val.string.val, value->val.string.len, &pattern);
	read_array(compiler, node, base, path);
	read_object(compiler, node, base, path);
	member_list(compiler, source, "allOf", base, path, &node->all_of);
	member_list(compiler, source, "anyOf", base, path, &node->any_of);
	member_list(compiler, source, "oneOf", base, path, &node->one_of);
	node->not = member_node(compiler, source, "not", base, path);
	if (draft > 6)
	{
		node->condition = member_node(compiler, source, "if", base, path);
		node->consequence = member_node(compiler, source, "then", base, path);
		node->alternative = member_node(compiler, source, "else", base, path);
	}
	node->combines = node->all_of.count > 0 || node->any_of.count > 0 || node->one_of.count > 0 ||
		node->not || node->condition;
	/* for the ids in it */
	(void) members(compiler, source, "definitions", base, path, &definitions);
}

/*
 * make_node returns the node of a value, made if it is not there yet.
 */
static EsSchemaNode *
make_node(EsSchemaCompiler *compiler, const JsonbValue *source, const char *base,
		  const EsJsonPath *path)
{
	EsSchemaNode *node;
	NodeEntry  *entry = NULL;
	bool		found = false;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (source->type == jbvBinary)
	{
		entry = hash_search(compiler->nodes, &source->val.binary.data, HASH_ENTER, &found);
		if (found)
			return entry->node;
	}
	node = palloc0(sizeof(EsSchemaNode));
	node->source = *source;
	node->min_length = node->max_length = node->min_items = node->max_items =
		node->min_properties = node->max_properties = -1;
	if (entry)
		entry->node = node;

	if (source->type == jbvBool)
		node->never = !source->val.boolean;
	else if (es_json_is_object(source))
		fill(compiler, node, base, path);
	else
		/* only a $ref to a place that no keyword knows can lead here */
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_EVENT_TYPE),
				 errmsg("the JSON Schema refers to something that is no schema"),
				 errdetail("At \"%s\" there must be an object.", es_json_path(path)),
				 errhint("Let every $ref lead to a schema, such as \"#/definitions/money\".")));
	return node;
}

/*
 * refuse_reference raises the error of a reference that leads nowhere.
 */
static void
refuse_reference(const EsSchemaNode *node)
{
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_EVENT_TYPE),
			 errmsg("the JSON Schema refers to something that is not in it"),
			 errdetail("At \"%s/$ref\": there is no \"%s\".", node->ref_place, node->ref_uri),
			 errhint("Nothing is fetched from elsewhere: put the schema into \"definitions\" and refer to it as \"#/definitions/name\", or register the one with that $id first.")));
}

/*
 * resolve_references finds what the nodes' references lead to.  Unless missing
 * is NULL, it ends at the first that leads out of the schema, and says where to.
 */
static List *
resolve_references(EsSchemaCompiler *compiler, char **missing)
{
	List	   *nodes = NIL;

	while (compiler->pending)
	{
		EsSchemaNode *node = llast(compiler->pending);
		char	   *document = pnstrdup(node->ref_uri, strcspn(node->ref_uri, "#"));
		JsonbValue	target;
		EsJsonPath	path = {NULL, "$ref", 4, 0};

		compiler->pending = list_delete_last(compiler->pending);
		nodes = lappend(nodes, node);
		if (!es_schema_find(compiler, node->ref_uri, &target))
		{
			if (missing == NULL || es_schema_find(compiler, document, &target))
				refuse_reference(node);
			*missing = document;
			return nodes;
		}
		node->ref = make_node(compiler, &target, document, &path);
	}
	return nodes;
}

/*
 * compile makes the nodes of a schema of a draft; missing as
 * resolve_references() has it.
 */
static EsSchema *
compile(Jsonb *source, int draft, char **missing)
{
	EsSchemaCompiler compiler = {0};
	HASHCTL		ctl;
	JsonbValue	root;
	List	   *references;

	compiler.schema = palloc0(sizeof(EsSchema));
	compiler.schema->source = source;
	es_json_root(source, &root);
	compiler.schema->draft = draft;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = sizeof(void *);
	ctl.entrysize = sizeof(NodeEntry);
	ctl.hcxt = CurrentMemoryContext;
	compiler.nodes = hash_create("eventsrc schema nodes", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ctl.keysize = 256;
	ctl.entrysize = 256 + sizeof(JsonbValue);
	compiler.documents = hash_create("eventsrc schema documents", 8, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	es_schema_add_document(&compiler, "", &root);
	compiler.schema->root = make_node(&compiler, &root, "", NULL);
	references = resolve_references(&compiler, missing);
	if (missing == NULL || *missing == NULL)
		es_schema_check_loops(compiler.schema->root, references);
	hash_destroy(compiler.nodes);
	hash_destroy(compiler.documents);
	return compiler.schema;
}

/*
 * es_schema_compile makes a schema ready for checks, in the current memory
 * context; raises ERRCODE_ES_INVALID_EVENT_TYPE if it is none.
 */
EsSchema *
es_schema_compile(Jsonb *source)
{
	Jsonb	   *copy = palloc(VARSIZE(source));

	memcpy(copy, source, VARSIZE(source));
	return compile(copy, es_metaschema_check(copy), NULL);
}

/*
 * es_schema_compile_checked does so with a schema that is known to be one, of a
 * draft.  It is not copied.
 */
EsSchema *
es_schema_compile_checked(Jsonb *source, int draft)
{
	return compile(source, draft, NULL);
}

/*
 * es_schema_missing returns the URI of a document that a schema refers to and
 * does not hold; NULL if there is none.
 */
char *
es_schema_missing(Jsonb *source)
{
	char	   *missing = NULL;

	(void) compile(source, es_metaschema_check(source), &missing);
	return missing;
}
