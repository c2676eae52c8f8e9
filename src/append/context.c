/*
 * context.c
 *		Who appends, and why: the settings eventsrc.user_id, correlation_id,
 *		causation_id and traceparent.
 */
#include "eventsrc.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "append/append.h"
#include "store/arguments.h"

PG_FUNCTION_INFO_V1(es_set_context);

/*
 * setting_text reads a setting as text; NULL if it is empty.
 */
static text *
setting_text(const char *value, const char *name)
{
	text	   *result;

	if (value == NULL || value[0] == '\0')
		return NULL;
	result = cstring_to_text(value);
	es_check_text(result, name, ES_MAX_ID);
	return result;
}

/*
 * es_context_get reads the context of the events that are appended now.  The
 * user is the session's where nothing else is set.
 */
void
es_context_get(EsContext *context)
{
	context->user_id = setting_text(es_setting_user_id, "eventsrc.user_id");
	if (context->user_id == NULL)
		context->user_id = cstring_to_text(GetUserNameFromId(GetSessionUserId(), false));
	context->correlation_id = setting_text(es_setting_correlation_id, "eventsrc.correlation_id");
	context->causation_id = setting_text(es_setting_causation_id, "eventsrc.causation_id");
	context->traceparent = setting_text(es_setting_traceparent, "eventsrc.traceparent");
}

/*
 * es_set_context(user_id, correlation_id, causation_id, traceparent) sets those
 * that are not NULL until the transaction ends.
 */
Datum
es_set_context(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		"eventsrc.user_id", "eventsrc.correlation_id",
		"eventsrc.causation_id", "eventsrc.traceparent"
	};

	for (int i = 0; i < lengthof(names); i++)
	{
		text	   *value;

		if (PG_ARGISNULL(i))
			continue;
		value = PG_GETARG_TEXT_PP(i);
		if (VARSIZE_ANY_EXHDR(value) > 0)
			es_check_text(value, names[i], ES_MAX_ID);
		(void) set_config_option(names[i], text_to_cstring(value), PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	}
	PG_RETURN_VOID();
}
