/*
 * run_object.c
 *		Makes the objects that a reducer's program (run.c) adds to the state.
 *
 * jsonb_build_object() finds out at each call what each of its arguments is, and
 * has a number written as text and read again.  Here that is known before.
 */
#include "state/program.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "schema/json_schema.h"

static void push_key(JsonbParseState **parse, const char *key, int keylen);
static bool set_value(JsonbValue *item, Oid type, Datum value);

/*
 * es_program_builds tells whether values of a type can be put into an object.
 */
bool
es_program_builds(Oid type)
{
	switch (type)
	{
		case JSONBOID:
		case TEXTOID:
		case VARCHAROID:
		case UNKNOWNOID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case BOOLOID:
			return true;
		default:
			return false;
	}
}

/*
 * es_program_make_part evaluates what is added to the state, which need not be an
 * object; false if only the function knows what comes of it.
 */
bool
es_program_make_part(EsProgram *program, EsProgramPart *part, EsProgramAdded *added)
{
	ListCell   *cell;
	bool		known = true;
	bool		isnull;
	Datum		value;

	added->object = NULL;
	added->nitems = 0;
	if (part->fields == NIL)
	{
		value = ExecEvalExpr(es_program_ready(program, &part->eval), program->econtext, &isnull);
		added->object = isnull ? NULL : DatumGetJsonbP(value);
		return !isnull;
	}

	added->items = palloc(sizeof(EsProgramItem) * list_length(part->fields));
	foreach(cell, part->fields)
	{
		EsProgramField *field = lfirst(cell);
		EsProgramItem *item = &added->items[added->nitems++];

		item->key = field->key;
		item->keylen = field->keylen;
		item->number = field->eval.number;
		if (field->looks)
			isnull = !es_program_find(program, &program->code->others[field->looks - ES_PARAM_OTHER],
									  &item->value);
		else
		{
			value = ExecEvalExpr(es_program_ready(program, &field->eval), program->econtext, &isnull);
			if (!isnull && !set_value(&item->value, field->type, value))
				known = false;	/* what follows may fail first */
		}
		if (isnull)
			item->value.type = jbvNull;
		if (isnull && part->sets)
			known = false;
	}
	return known;
}

/*
 * es_program_object returns what is added to the state as jsonb.
 */
Jsonb *
es_program_object(EsProgramAdded *added)
{
	JsonbParseState *parse = NULL;

	if (added->object)
		return added->object;
	(void) pushJsonbValue(&parse, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < added->nitems; i++)
	{
		push_key(&parse, added->items[i].key, added->items[i].keylen);
		(void) pushJsonbValue(&parse, WJB_VALUE, &added->items[i].value);
	}
	added->object = JsonbValueToJsonb(pushJsonbValue(&parse, WJB_END_OBJECT, NULL));
	return added->object;
}

/*
 * push_key begins a key of an object.
 */
static void
push_key(JsonbParseState **parse, const char *key, int keylen)
{
	JsonbValue	item;

	item.type = jbvString;
	item.val.string.val = unconstify(char *, key);
	item.val.string.len = keylen;
	(void) pushJsonbValue(parse, WJB_KEY, &item);
}

/*
 * set_value makes an item of a value of a type; false if that takes more than is
 * done here.
 */
static bool
set_value(JsonbValue *item, Oid type, Datum value)
{
	switch (type)
	{
		case JSONBOID:
			es_json_root(DatumGetJsonbP(value), item);
			return true;
		case BOOLOID:
			item->type = jbvBool;
			item->val.boolean = DatumGetBool(value);
			return true;
		case INT4OID:
		case INT8OID:
			item->type = jbvNumeric;
			item->val.numeric = int64_to_numeric(type == INT4OID ? DatumGetInt32(value) : DatumGetInt64(value));
			return true;
		case NUMERICOID:
			item->type = jbvNumeric;
			item->val.numeric = DatumGetNumeric(value);
			return !numeric_is_nan(item->val.numeric) && !numeric_is_inf(item->val.numeric);
		case UNKNOWNOID:
			item->type = jbvString;
			item->val.string.val = DatumGetCString(value);
			item->val.string.len = strlen(item->val.string.val);
			break;
		default:
			item->type = jbvString;
			item->val.string.val = VARDATA_ANY(DatumGetTextPP(value));
			item->val.string.len = VARSIZE_ANY_EXHDR(DatumGetTextPP(value));
	}
	return item->val.string.len <= JENTRY_OFFLENMASK;
}
