/*
 * stop_point.c
 *		Stop points: named places at which a test can pause a backend.  Part of
 *		builds for tests only.
 */
#include "eventsrc.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "store/stop_point.h"

#ifndef ES_STOP_POINTS
#error "stop points belong in builds for tests only: make STOP_POINTS=1"
#endif

bool		es_test_registry = true;
static char *stop_points = NULL;

/*
 * es_stop_point_define_settings declares the settings that only a build for
 * tests has, and says in the server's log that this is one.
 */
void
es_stop_point_define_settings(void)
{
	DefineCustomStringVariable("eventsrc.test_stop_points",
							   "Stop points at which the session pauses while another holds their advisory locks.",
							   NULL, &stop_points, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("eventsrc.test_registry",
							 "Off breaks the order of events: appenders do not publish what they have not decided.",
							 NULL, &es_test_registry, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	ereport(LOG,
			(errmsg("eventsrc was built with stop points, for tests only")));
}

/*
 * is_wanted tells whether the setting names a stop point, between commas.
 */
static bool
is_wanted(const char *name)
{
	size_t		length = strlen(name);

	for (const char *p = stop_points; p && *p;)
	{
		const char *end = strchr(p, ',');

		while (*p == ' ')
			p++;
		if (strncmp(p, name, length) == 0 && (p[length] == '\0' || p[length] == ','))
			return true;
		p = end ? end + 1 : NULL;
	}
	return false;
}

/*
 * set_tag makes the tag of pg_advisory_lock(hashtext(name)).
 */
static void
set_tag(LOCKTAG *tag, const char *name)
{
	int64		key = (int32) hash_bytes((const unsigned char *) name, (int) strlen(name));

	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, 1);
}

/*
 * es_stop_point waits until nobody holds the point's lock, if the session is
 * to pause there.
 */
void
es_stop_point(const char *name)
{
	LOCKTAG		tag;

	if (!is_wanted(name))
		return;
	set_tag(&tag, name);
	(void) LockAcquire(&tag, ShareLock, false, false);
	LockRelease(&tag, ShareLock, false);
}

/*
 * es_stop_point_busy does the same by looking again and again, for the end of
 * a transaction, where nothing may fail or be interrupted.
 */
void
es_stop_point_busy(const char *name)
{
	LOCKTAG		tag;

	if (!is_wanted(name))
		return;
	set_tag(&tag, name);
	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	while (LockAcquire(&tag, ShareLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		pg_usleep(1000);
	LockRelease(&tag, ShareLock, true);
	pgstat_report_wait_end();
}
