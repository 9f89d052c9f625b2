// Package registry puts crid's pulls through the faults F96 to F103: registries that stall, lie, send without end, redirect, refuse, change their
// minds and die. The registry is this test binary.
//
// Each fault of the matrix, and the tests that put it in crid's way; those without its number were there before, in other folders. hack's
// TestEveryRowOfTheMatrixHasATest checks that the tests exist.
//
//	F96   registries that stall or drip                            TestF96StallsAndDrips, TestF96ACallerLeavesAStalledPull
//	F97   content that lies, bombs, documents without measure      TestF97LayersThatLie, TestF97LayersThatCannotBeUnpacked,
//	                                                               TestF97DocumentsWithoutMeasure, TestF97AnImageOf128Layers, TestLimits
//	F98   connections that break, ranges that are wrong            TestF98ConnectionsThatBreakAndRanges, TestBrokenConnectionsAreResumed
//	F99   redirects and realms                                     TestF99RedirectsAndRealms, TestCredentialsStayWithTheirHost
//	F100  a registry that is busy                                  TestF100ABusyRegistry
//	F101  tags that move, pulls and removals at once               TestF101ATagThatMoves, TestF101PullsAndRemovalsAtOnce
//	F102  odd manifests                                            TestF102ManifestsThatAreRefused, TestF102OddImagesThatWork, TestDiffIDsAreChecked
//	F103  a registry that is killed, a disk that is full           TestF103TheRegistryIsKilledDuringFiftyPulls, TestF103TheDiskIsFullInTheMiddleOfALayer,
//	                                                               TestFullDiskGivesItsSpaceBack
package registry
