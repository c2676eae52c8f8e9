/*
 * stop_point.h
 *		Stop points: named places at which a test can pause a backend.
 *
 * They exist only in a build for tests (make STOP_POINTS=1), which defines
 * ES_STOP_POINTS; in any other build the macros are empty and stop_point.c is
 * not compiled.
 *
 * A session names the points at which it is to pause in the setting
 * eventsrc.test_stop_points ('published, position taken').  There it waits as
 * long as another session holds the advisory lock
 * pg_advisory_lock(hashtext('position taken')).
 */
#ifndef EVENTSRC_STOP_POINT_H
#define EVENTSRC_STOP_POINT_H

#ifdef ES_STOP_POINTS

/* eventsrc.test_registry: off makes appenders publish no slot, and readers skip */
extern bool es_test_registry;

extern void es_stop_point_define_settings(void);
extern void es_stop_point(const char *name);
extern void es_stop_point_busy(const char *name);

#define ES_STOP_POINT(name)			es_stop_point(name)
/* where a backend must neither fail nor sleep on a lock */
#define ES_STOP_POINT_BUSY(name)	es_stop_point_busy(name)
#define ES_STOP_POINT_SETTINGS()	es_stop_point_define_settings()
#define ES_TEST_REGISTRY()			(es_test_registry)

#else

#define ES_STOP_POINT(name)			((void) 0)
#define ES_STOP_POINT_BUSY(name)	((void) 0)
#define ES_STOP_POINT_SETTINGS()	((void) 0)
#define ES_TEST_REGISTRY()			(true)

#endif							/* ES_STOP_POINTS */

#endif							/* EVENTSRC_STOP_POINT_H */
