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
#include "utils/inval.h"
#include "utils/syscache.h"

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

/* the session's user, as text; InvalidOid: to be looked up */
static Oid	user_known = InvalidOid;
static union
{
	int32		align;
	text		value;
	char		space[VARHDRSZ + NAMEDATALEN];
}			session_user_name;

/*
 * forget_session_user forgets the name of the session's user, which may have
 * changed; a callback of the cache of roles.
 */
static void
forget_session_user(Datum arg, int cacheid, uint32 hash)
{
	user_known = InvalidOid;
}

/*
 * session_user_text gives the name of the session's user.
 */
static text *
session_user_text(void)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterSyscacheCallback(AUTHOID, forget_session_user, (Datum) 0);
		registered = true;
	}
	if (user_known != GetSessionUserId())
	{
		char	   *name = GetUserNameFromId(GetSessionUserId(), false);
		Size		length = Min(strlen(name), NAMEDATALEN - 1);

		SET_VARSIZE(&session_user_name.value, VARHDRSZ + length);
		memcpy(VARDATA(&session_user_name.value), name, length);
		user_known = GetSessionUserId();
		pfree(name);
	}
	return &session_user_name.value;
}

/*
 * es_context_get reads the context of the events that are appended now.  The
 * user is the session's where nothing else is set; that text is not the
 * caller's.
 */
void
es_context_get(EsContext *context)
{
	context->user_id = setting_text(es_setting_user_id, "eventsrc.user_id");
	if (context->user_id == NULL)
		context->user_id = session_user_text();
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
