/*
 * run_value.c
 *		What the Params of a program's (run.c) expressions stand for: the state,
 *		the event, its columns, keys of these, variables.
 */
#include "state/program.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

static void read_key(EsProgram *program, EsProgramParam *param, ParamExternData *result);
static bool find_added(EsProgramAdded *part, EsProgramParam *param, JsonbValue *value);
static void keep_value(JsonbValue *value);
static bool find_in(Jsonb *object, EsProgramParam *param, JsonbValue *value);
static Datum value_as_text(JsonbValue *value, bool *isnull);
static Datum value_as_numeric(JsonbValue *value, bool *isnull);
static void read_column(EsProgram *program, int column, ParamExternData *result);

/*
 * es_program_fetch gives an expression the value of one of its Params.
 */
ParamExternData *
es_program_fetch(ParamListInfo params, int id, bool speculative, ParamExternData *result)
{
	EsProgram  *program = params->paramFetchArg;

	result->isnull = false;
	result->pflags = 0;
	if (id >= ES_PARAM_OTHER)
	{
		EsProgramParam *param = &program->code->others[id - ES_PARAM_OTHER];

		result->ptype = param->type;
		if (param->key)
			read_key(program, param, result);
		else
		{
			NullableDatum *variable = &program->variables[id - ES_PARAM_OTHER];

			result->value = variable->value;
			result->isnull = variable->isnull;
		}
	}
	else if (id >= ES_PARAM_COLUMN)
		read_column(program, id - ES_PARAM_COLUMN, result);
	else if (id == ES_PARAM_EVENT)
	{
		if (program->event.isnull)
		{
			program->event.value = es_event_datum(program->slot);
			program->event.isnull = false;
		}
		result->ptype = es_event_type();
		result->value = program->event.value;
	}
	else
	{
		result->ptype = JSONBOID;
		result->value = es_program_state(program, &result->isnull);
	}
	return result;
}

/*
 * read_key looks at a key of the state or of a column.
 */
static void
read_key(EsProgram *program, EsProgramParam *param, ParamExternData *result)
{
	JsonbValue	value;

	result->value = (Datum) 0;
	result->isnull = !es_program_find(program, param, &value);
	if (result->isnull)
		return;
	if (param->look == ES_LOOK_JSONB)
		result->value = JsonbPGetDatum(JsonbValueToJsonb(&value));
	else if (param->look == ES_LOOK_TEXT)
		result->value = value_as_text(&value, &result->isnull);
	else
		result->value = value_as_numeric(&value, &result->isnull);
}

/*
 * es_program_find finds the value of a key, which lasts as long as the run, of a
 * column or of the state: there, in what was added last, or in what it was.
 */
bool
es_program_find(EsProgram *program, EsProgramParam *param, JsonbValue *value)
{
	if (param->of != ES_PARAM_STATE)
	{
		ParamExternData column;

		read_column(program, param->of - ES_PARAM_COLUMN, &column);
		return !column.isnull && find_in(DatumGetJsonbP(column.value), param, value);
	}
	if (program->assigned)
		return !program->value.isnull && find_in(DatumGetJsonbP(program->value.value), param, value);
	for (int i = program->nparts - 1; i >= 0; i--)
	{
		if (find_added(&program->parts[i], param, value))
			return true;
	}
	if (program->merge == NULL)
		return find_in(DatumGetJsonbP(program->state), param, value);
	if (!es_merge_find(program->merge, param->key, param->keylen, value))
		return false;
	keep_value(value);
	return true;
}

/*
 * find_added finds the value of a key in what was added to the state.
 */
static bool
find_added(EsProgramAdded *part, EsProgramParam *param, JsonbValue *value)
{
	for (int i = part->nitems - 1; i >= 0; i--)
	{
		EsProgramItem *item = &part->items[i];

		if (item->keylen == param->keylen && memcmp(item->key, param->key, param->keylen) == 0)
		{
			*value = item->value;
			return true;
		}
	}
	return part->nitems == 0 && find_in(part->object, param, value);
}

/*
 * keep_value copies a value that lies in the open state, where another may take
 * its place.
 */
static void
keep_value(JsonbValue *value)
{
	void	   *copy;

	switch (value->type)
	{
		case jbvString:
			copy = palloc(value->val.string.len + 1);
			memcpy(copy, value->val.string.val, value->val.string.len);
			value->val.string.val = copy;
			break;
		case jbvNumeric:
			copy = palloc(VARSIZE_ANY(value->val.numeric));
			memcpy(copy, value->val.numeric, VARSIZE_ANY(value->val.numeric));
			value->val.numeric = copy;
			break;
		case jbvBinary:
			copy = palloc(value->val.binary.len);
			memcpy(copy, value->val.binary.data, value->val.binary.len);
			value->val.binary.data = copy;
			break;
		default:
			break;
	}
}

/*
 * find_in finds the value of a key in jsonb, if that is an object that has it.
 */
static bool
find_in(Jsonb *object, EsProgramParam *param, JsonbValue *value)
{
	return JB_ROOT_IS_OBJECT(object) &&
		getKeyJsonValueFromContainer(&object->root, param->key, param->keylen, value) != NULL;
}

/*
 * value_as_text writes a value as ->> does.
 */
static Datum
value_as_text(JsonbValue *value, bool *isnull)
{
	StringInfoData text;

	switch (value->type)
	{
		case jbvNull:
			*isnull = true;
			return (Datum) 0;
		case jbvBool:
			return PointerGetDatum(cstring_to_text(value->val.boolean ? "true" : "false"));
		case jbvString:
			return PointerGetDatum(cstring_to_text_with_len(value->val.string.val,
															value->val.string.len));
		case jbvNumeric:
			return PointerGetDatum(cstring_to_text(DatumGetCString(DirectFunctionCall1(numeric_out,
																					   NumericGetDatum(value->val.numeric)))));
		default:
			initStringInfo(&text);
			(void) JsonbToCString(&text, value->val.binary.data, value->val.binary.len);
			return PointerGetDatum(cstring_to_text_with_len(text.data, text.len));
	}
}

/*
 * value_as_numeric makes a number of a value as of the text that ->> gives.
 */
static Datum
value_as_numeric(JsonbValue *value, bool *isnull)
{
	Datum		as_text;

	if (value->type == jbvNumeric)
		return NumericGetDatum(value->val.numeric);
	as_text = value_as_text(value, isnull);
	if (*isnull)
		return (Datum) 0;
	return DirectFunctionCall3(numeric_in, CStringGetDatum(TextDatumGetCString(as_text)),
							   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/*
 * read_column reads a column of the event; what is jsonb, once and for all as it
 * can be looked into.
 */
static void
read_column(EsProgram *program, int column, ParamExternData *result)
{
	TupleTableSlot *slot = program->slot;
	NullableDatum *kept = &program->columns[column];

	result->ptype = TupleDescAttr(slot->tts_tupleDescriptor, column)->atttypid;
	result->isnull = false;
	if (!kept->isnull)
	{
		result->value = kept->value;
		return;
	}
	result->value = slot_getattr(slot, column + 1, &result->isnull);
	if (!result->isnull && result->ptype == JSONBOID)
	{
		result->value = JsonbPGetDatum(DatumGetJsonbP(result->value));
		*kept = (NullableDatum)
		{
			result->value, false
		};
	}
}
