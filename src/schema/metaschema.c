/*
 * metaschema.c
 *		The drafts of JSON Schema that are known, and the schemas of their
 *		schemas, as json-schema.org publishes them, without their descriptions.
 */
#include "eventsrc.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

#include "schema/json_schema.h"

/* without the fragment that is empty */
static const char *const uris[3] = {
	"http://json-schema.org/draft-04/schema",
	"http://json-schema.org/draft-06/schema",
	"http://json-schema.org/draft-07/schema",
};

static const char *const metaschemas[3] = {
	"{\"id\": \"http://json-schema.org/draft-04/schema#\", \"$schema\": "
	"\"http://json-schema.org/draft-04/schema#\", \"definitions\": {\"schemaArray\": {\"type\": \"array\", "
	"\"minItems\": 1, \"items\": {\"$ref\": \"#\"}}, \"positiveInteger\": {\"type\": \"integer\", \"minimum\": 0}, "
	"\"positiveIntegerDefault0\": {\"allOf\": [{\"$ref\": \"#/definitions/positiveInteger\"}, {\"default\": 0}]}, "
	"\"simpleTypes\": {\"enum\": [\"array\", \"boolean\", \"integer\", \"null\", \"number\", \"object\", \"string\"]}, "
	"\"stringArray\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"minItems\": 1, \"uniqueItems\": true}}, "
	"\"type\": \"object\", \"properties\": {\"id\": {\"format\": \"uri\", \"type\": \"string\"}, \"$schema\": {\"type\": "
	"\"string\", \"format\": \"uri\"}, \"title\": {\"type\": \"string\"}, \"description\": {\"type\": \"string\"}, "
	"\"default\": {}, \"multipleOf\": {\"type\": \"number\", \"minimum\": 0, \"exclusiveMinimum\": true}, \"maximum\": "
	"{\"type\": \"number\"}, \"exclusiveMaximum\": {\"type\": \"boolean\", \"default\": false}, \"minimum\": {\"type\": "
	"\"number\"}, \"exclusiveMinimum\": {\"type\": \"boolean\", \"default\": false}, \"maxLength\": {\"$ref\": "
	"\"#/definitions/positiveInteger\"}, \"minLength\": {\"$ref\": \"#/definitions/positiveIntegerDefault0\"}, "
	"\"pattern\": {\"type\": \"string\", \"format\": \"regex\"}, \"additionalItems\": {\"anyOf\": [{\"type\": "
	"\"boolean\"}, {\"$ref\": \"#\"}], \"default\": {}}, \"items\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": "
	"\"#/definitions/schemaArray\"}], \"default\": {}}, \"maxItems\": {\"$ref\": "
	"\"#/definitions/positiveInteger\"}, \"minItems\": {\"$ref\": \"#/definitions/positiveIntegerDefault0\"}, "
	"\"uniqueItems\": {\"type\": \"boolean\", \"default\": false}, \"maxProperties\": {\"$ref\": "
	"\"#/definitions/positiveInteger\"}, \"minProperties\": {\"$ref\": "
	"\"#/definitions/positiveIntegerDefault0\"}, \"required\": {\"$ref\": \"#/definitions/stringArray\"}, "
	"\"additionalProperties\": {\"anyOf\": [{\"type\": \"boolean\"}, {\"$ref\": \"#\"}], \"default\": {}}, "
	"\"definitions\": {\"type\": \"object\", \"additionalProperties\": {\"$ref\": \"#\"}, \"default\": {}}, "
	"\"properties\": {\"type\": \"object\", \"additionalProperties\": {\"$ref\": \"#\"}, \"default\": {}}, "
	"\"patternProperties\": {\"type\": \"object\", \"additionalProperties\": {\"$ref\": \"#\"}, \"default\": {}}, "
	"\"dependencies\": {\"type\": \"object\", \"additionalProperties\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": "
	"\"#/definitions/stringArray\"}]}}, \"enum\": {\"type\": \"array\"}, \"type\": {\"anyOf\": [{\"$ref\": "
	"\"#/definitions/simpleTypes\"}, {\"type\": \"array\", \"items\": {\"$ref\": \"#/definitions/simpleTypes\"}, "
	"\"minItems\": 1, \"uniqueItems\": true}]}, \"format\": {\"type\": \"string\"}, \"allOf\": {\"$ref\": "
	"\"#/definitions/schemaArray\"}, \"anyOf\": {\"$ref\": \"#/definitions/schemaArray\"}, \"oneOf\": {\"$ref\": "
	"\"#/definitions/schemaArray\"}, \"not\": {\"$ref\": \"#\"}}, \"dependencies\": {\"exclusiveMaximum\": "
	"[\"maximum\"], \"exclusiveMinimum\": [\"minimum\"]}, \"default\": {}}",
	"{\"$schema\": \"http://json-schema.org/draft-06/schema#\", \"$id\": "
	"\"http://json-schema.org/draft-06/schema#\", \"definitions\": {\"schemaArray\": {\"type\": \"array\", "
	"\"minItems\": 1, \"items\": {\"$ref\": \"#\"}}, \"nonNegativeInteger\": {\"type\": \"integer\", \"minimum\": 0}, "
	"\"nonNegativeIntegerDefault0\": {\"allOf\": [{\"$ref\": \"#/definitions/nonNegativeInteger\"}, {\"default\": "
	"0}]}, \"simpleTypes\": {\"enum\": [\"array\", \"boolean\", \"integer\", \"null\", \"number\", \"object\", "
	"\"string\"]}, \"stringArray\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"uniqueItems\": true, "
	"\"default\": []}}, \"type\": [\"object\", \"boolean\"], \"properties\": {\"$id\": {\"type\": \"string\", \"format\": "
	"\"uri-reference\"}, \"$schema\": {\"type\": \"string\", \"format\": \"uri\"}, \"$ref\": {\"type\": \"string\", "
	"\"format\": \"uri-reference\"}, \"title\": {\"type\": \"string\"}, \"description\": {\"type\": \"string\"}, "
	"\"default\": {}, \"examples\": {\"type\": \"array\", \"items\": {}}, \"multipleOf\": {\"type\": \"number\", "
	"\"exclusiveMinimum\": 0}, \"maximum\": {\"type\": \"number\"}, \"exclusiveMaximum\": {\"type\": \"number\"}, "
	"\"minimum\": {\"type\": \"number\"}, \"exclusiveMinimum\": {\"type\": \"number\"}, \"maxLength\": {\"$ref\": "
	"\"#/definitions/nonNegativeInteger\"}, \"minLength\": {\"$ref\": "
	"\"#/definitions/nonNegativeIntegerDefault0\"}, \"pattern\": {\"type\": \"string\", \"format\": \"regex\"}, "
	"\"additionalItems\": {\"$ref\": \"#\"}, \"items\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": "
	"\"#/definitions/schemaArray\"}], \"default\": {}}, \"maxItems\": {\"$ref\": "
	"\"#/definitions/nonNegativeInteger\"}, \"minItems\": {\"$ref\": "
	"\"#/definitions/nonNegativeIntegerDefault0\"}, \"uniqueItems\": {\"type\": \"boolean\", \"default\": false}, "
	"\"contains\": {\"$ref\": \"#\"}, \"maxProperties\": {\"$ref\": \"#/definitions/nonNegativeInteger\"}, "
	"\"minProperties\": {\"$ref\": \"#/definitions/nonNegativeIntegerDefault0\"}, \"required\": {\"$ref\": "
	"\"#/definitions/stringArray\"}, \"additionalProperties\": {\"$ref\": \"#\"}, \"definitions\": {\"type\": "
	"\"object\", \"additionalProperties\": {\"$ref\": \"#\"}, \"default\": {}}, \"properties\": {\"type\": \"object\", "
	"\"additionalProperties\": {\"$ref\": \"#\"}, \"default\": {}}, \"patternProperties\": {\"type\": \"object\", "
	"\"additionalProperties\": {\"$ref\": \"#\"}, \"propertyNames\": {\"format\": \"regex\"}, \"default\": {}}, "
	"\"dependencies\": {\"type\": \"object\", \"additionalProperties\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": "
	"\"#/definitions/stringArray\"}]}}, \"propertyNames\": {\"$ref\": \"#\"}, \"const\": {}, \"enum\": {\"type\": "
	"\"array\"}, \"type\": {\"anyOf\": [{\"$ref\": \"#/definitions/simpleTypes\"}, {\"type\": \"array\", \"items\": "
	"{\"$ref\": \"#/definitions/simpleTypes\"}, \"minItems\": 1, \"uniqueItems\": true}]}, \"format\": {\"type\": "
	"\"string\"}, \"allOf\": {\"$ref\": \"#/definitions/schemaArray\"}, \"anyOf\": {\"$ref\": "
	"\"#/definitions/schemaArray\"}, \"oneOf\": {\"$ref\": \"#/definitions/schemaArray\"}, \"not\": {\"$ref\": "
	"\"#\"}}, \"default\": {}}",
	"{\"$schema\": \"http://json-schema.org/draft-07/schema#\", \"$id\": "
	"\"http://json-schema.org/draft-07/schema#\", \"definitions\": {\"schemaArray\": {\"type\": \"array\", "
	"\"minItems\": 1, \"items\": {\"$ref\": \"#\"}}, \"nonNegativeInteger\": {\"type\": \"integer\", \"minimum\": 0}, "
	"\"nonNegativeIntegerDefault0\": {\"allOf\": [{\"$ref\": \"#/definitions/nonNegativeInteger\"}, {\"default\": "
	"0}]}, \"simpleTypes\": {\"enum\": [\"array\", \"boolean\", \"integer\", \"null\", \"number\", \"object\", "
	"\"string\"]}, \"stringArray\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"uniqueItems\": true, "
	"\"default\": []}}, \"type\": [\"object\", \"boolean\"], \"properties\": {\"$id\": {\"type\": \"string\", \"format\": "
	"\"uri-reference\"}, \"$schema\": {\"type\": \"string\", \"format\": \"uri\"}, \"$ref\": {\"type\": \"string\", "
	"\"format\": \"uri-reference\"}, \"$comment\": {\"type\": \"string\"}, \"title\": {\"type\": \"string\"}, "
	"\"description\": {\"type\": \"string\"}, \"default\": true, \"readOnly\": {\"type\": \"boolean\", \"default\": "
	"false}, \"examples\": {\"type\": \"array\", \"items\": true}, \"multipleOf\": {\"type\": \"number\", "
	"\"exclusiveMinimum\": 0}, \"maximum\": {\"type\": \"number\"}, \"exclusiveMaximum\": {\"type\": \"number\"}, "
	"\"minimum\": {\"type\": \"number\"}, \"exclusiveMinimum\": {\"type\": \"number\"}, \"maxLength\": {\"$ref\": "
	"\"#/definitions/nonNegativeInteger\"}, \"minLength\": {\"$ref\": "
	"\"#/definitions/nonNegativeIntegerDefault0\"}, \"pattern\": {\"type\": \"string\", \"format\": \"regex\"}, "
	"\"additionalItems\": {\"$ref\": \"#\"}, \"items\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": "
	"\"#/definitions/schemaArray\"}], \"default\": true}, \"maxItems\": {\"$ref\": "
	"\"#/definitions/nonNegativeInteger\"}, \"minItems\": {\"$ref\": "
	"\"#/definitions/nonNegativeIntegerDefault0\"}, \"uniqueItems\": {\"type\": \"boolean\", \"default\": false}, "
	"\"contains\": {\"$ref\": \"#\"}, \"maxProperties\": {\"$ref\": \"#/definitions/nonNegativeInteger\"}, "
	"\"minProperties\": {\"$ref\": \"#/definitions/nonNegativeIntegerDefault0\"}, \"required\": {\"$ref\": "
	"\"#/definitions/stringArray\"}, \"additionalProperties\": {\"$ref\": \"#\"}, \"definitions\": {\"type\": "
	"\"object\", \"additionalProperties\": {\"$ref\": \"#\"}, \"default\": {}}, \"properties\": {\"type\": \"object\", "
	"\"additionalProperties\": {\"$ref\": \"#\"}, \"default\": {}}, \"patternProperties\": {\"type\": \"object\", "
	"\"additionalProperties\": {\"$ref\": \"#\"}, \"propertyNames\": {\"format\": \"regex\"}, \"default\": {}}, "
	"\"dependencies\": {\"type\": \"object\", \"additionalProperties\": {\"anyOf\": [{\"$ref\": \"#\"}, {\"$ref\": "
	"\"#/definitions/stringArray\"}]}}, \"propertyNames\": {\"$ref\": \"#\"}, \"const\": true, \"enum\": {\"type\": "
	"\"array\", \"items\": true}, \"type\": {\"anyOf\": [{\"$ref\": \"#/definitions/simpleTypes\"}, {\"type\": "
	"\"array\", \"items\": {\"$ref\": \"#/definitions/simpleTypes\"}, \"minItems\": 1, \"uniqueItems\": true}]}, "
	"\"format\": {\"type\": \"string\"}, \"contentMediaType\": {\"type\": \"string\"}, \"contentEncoding\": {\"type\": "
	"\"string\"}, \"if\": {\"$ref\": \"#\"}, \"then\": {\"$ref\": \"#\"}, \"else\": {\"$ref\": \"#\"}, \"allOf\": {\"$ref\": "
	"\"#/definitions/schemaArray\"}, \"anyOf\": {\"$ref\": \"#/definitions/schemaArray\"}, \"oneOf\": {\"$ref\": "
	"\"#/definitions/schemaArray\"}, \"not\": {\"$ref\": \"#\"}}, \"default\": true}",
};

/*
 * es_metaschema_source returns the metaschema of a URI (without a fragment that
 * is empty), in the current memory context; NULL if there is none.
 */
Jsonb *
es_metaschema_source(const char *uri)
{
	for (int i = 0; i < lengthof(uris); i++)
	{
		if (strcmp(uri, uris[i]) == 0)
			return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(metaschemas[i])));
	}
	return NULL;
}

/*
 * find_draft finds which draft a schema is written in: 7 unless it says so.
 */
static int
find_draft(const JsonbValue *root)
{
	JsonbValue *uri = es_json_is_object(root) ? es_json_member(root, "$schema") : NULL;
	static const int drafts[] = {4, 6, 7};
	int			length;

	if (uri == NULL || uri->type != jbvString)
		return 7;
	length = uri->val.string.len;
	if (length > 0 && uri->val.string.val[length - 1] == '#')
		length--;
	for (int i = 0; i < lengthof(drafts); i++)
	{
		const char *known = uris[i];

		if (length == strlen(known) && memcmp(uri->val.string.val, known, length) == 0)
			return drafts[i];
		/* https is often written, though it is not the schemas' name */
		if (length == strlen(known) + 1 && memcmp(uri->val.string.val, "https", 5) == 0 &&
			memcmp(uri->val.string.val + 5, known + 4, length - 5) == 0)
			return drafts[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_ES_INVALID_EVENT_TYPE),
			 errmsg("the JSON Schema is written in a draft that is not known"),
			 errdetail("$schema is \"%.*s\".", uri->val.string.len, uri->val.string.val),
			 errhint("Drafts 4, 6 and 7 are known, for example \"http://json-schema.org/draft-07/schema#\".")));
}

/*
 * metaschema returns the schema of a draft's schemas.
 */
static EsSchema *
metaschema(int draft)
{
	static EsSchema *known[3];
	int			i = draft == 4 ? 0 : draft - 5;

	if (known[i] == NULL)
	{
		MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "eventsrc metaschema",
													  ALLOCSET_SMALL_SIZES);
		MemoryContext old = MemoryContextSwitchTo(context);
		EsSchema   *schema = es_schema_compile_checked(es_metaschema_source(uris[i]), draft);

		MemoryContextSwitchTo(old);
		MemoryContextSetParent(context, TopMemoryContext);
		known[i] = schema;
	}
	return known[i];
}

/*
 * es_metaschema_check returns the draft in which a schema is written; raises
 * ERRCODE_ES_INVALID_EVENT_TYPE unless that draft's metaschema accepts it.
 */
int
es_metaschema_check(Jsonb *source)
{
	EsSchemaFailure failure;
	JsonbValue	root;
	int			draft;

	es_json_root(source, &root);
	draft = find_draft(&root);
	if (!es_schema_check(metaschema(draft), source, &failure))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_EVENT_TYPE),
				 errmsg("json_schema is not a JSON Schema"),
				 errdetail("At \"%s\": %s.", failure.pointer, failure.reason),
				 errhint("It is read as draft %d; $schema names another one.", draft)));
	return draft;
}
