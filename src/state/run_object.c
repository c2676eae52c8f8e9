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
 * es_program_object evaluates what is added to the state, and returns it as
 * jsonb, which need not be an object; NULL if only the function knows what comes
 * of it.
 */
Jsonb *
es_program_object(EsProgram *program, EsProgramPart *part)
{
	JsonbParseState *parse = NULL;
	JsonbValue	item;
	ListCell   *cell;
	bool		known = true;
	bool		isnull;
	Datum		value;

	if (part->fields == NIL)
	{
		value = ExecEvalExpr(es_program_ready(program, &part->eval), program->econtext, &isnull);
		return isnull ? NULL : DatumGetJsonbP(value);
	}

	(void) pushJsonbValue(&parse, WJB_BEGIN_OBJECT, NULL);
	foreach(cell, part->fields)
	{
		EsProgramField *field = lfirst(cell);

		value = ExecEvalExpr(es_program_ready(program, &field->eval), program->econtext, &isnull);
		item.type = jbvNull;
		if (isnull ? part->sets : !set_value(&item, field->type, value))
			known = false;		/* what follows may fail first */
		if (!known)
			continue;
		push_key(&parse, field->key, field->keylen);
		(void) pushJsonbValue(&parse, WJB_VALUE, &item);
	}
	return known ? JsonbValueToJsonb(pushJsonbValue(&parse, WJB_END_OBJECT, NULL)) : NULL;
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
